"""One Ray Data pipeline from a source to the store: list, fetch, decode, segment, mel, teacher, write.

One row is one track until it is written: one fetch and one decode feed the mel and every teacher that
lacks targets. A track whose audio is at fault becomes a quarantine row and costs no other track; a track
that cannot be fetched now is reported and tried again by the next run. What one teacher cannot use goes to
a quarantine of that teacher's, and costs neither the mel nor another teacher's targets.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from etude.data.catalogue import track_of
from etude.data.features import Featurize
from etude.data.fetch import Fetch
from etude.data.plan import Job, Plan, plan
from etude.data.ray_data import STILL_S, cluster, prepare_context, rows_of
from etude.data.recall import recall
from etude.data.shards import write_rows
from etude.data.store import Quarantined, Store, features_part, targets_part
from etude.errors import UserError
from etude.sources import requests_at_a_time
from etude.sources.base import Track
from etude.teachers import StoredConfig
from etude.teachers.stored import vectors_hash

BLOCK_S = 960.0  # of audio that travels together: little, so that the last actor is not waited for long
BLOCK_TRACKS = 64  # however short they are
MAX_BLOCKS = 4096  # each costs the driver memory and time; where there are more tracks, more travel together
FETCH, FEATURIZE, WRITE = 0.1, 0.8, 0.1  # shares of what one CPU's work reserves
LEFT_S = 86_400.0  # no write takes a day: a temporary file of that age is nobody's


@dataclass
class PrepareReport:
    """What a run did. Every track is in exactly one of the first four counts, by its audio and first teacher.

    A track is in quarantine if its audio is at fault or the first teacher can make nothing of it, whatever
    the others do, and out of reach if its audio or its first teacher's vector cannot be had now. What
    concerns only another teacher stands in `also_*` beside these counts, and its reason names the teacher.
    If a run could write nothing of a track that lacks nothing of the first teacher's, the track was there.
    """

    total: int
    found: int = 0  # there before
    prepared: int = 0  # something of the track was written
    quarantined: list[Quarantined] = field(default_factory=list)
    unreachable: list[Quarantined] = field(default_factory=list)
    also_quarantined: list[Quarantined] = field(default_factory=list)
    also_unreachable: list[Quarantined] = field(default_factory=list)

    def check(self) -> None:
        """Rows in must equal rows out plus quarantined plus out of reach."""
        out = self.found + self.prepared + len(self.quarantined) + len(self.unreachable)
        assert out == self.total, f"{self.total} tracks went in, {out} came out"


def prepare(
    job: Job, progress: Callable[[int, int, float], None], planned: Plan | None = None
) -> PrepareReport:
    """Prepare what is missing of the tracks `planned`. Needs a Ray session, unless nothing is missing.

    `progress(done, total, audio_seconds)` is called as shards are committed. Raises UserError if the disk
    is too small, another run prepares the same recipe there, no track at all is usable, or a stored teacher's
    vectors changed meanwhile.
    """
    planned = planned or plan(job)
    store = Store(job.store)
    _check_disk(store, planned)
    if not planned.todo:
        return _prepare(job, store, planned, progress)
    with store.held(features_part(job.recipe)):
        clear_left_behind(job.store)
        # What another run has prepared since then is not prepared again.
        return _prepare(job, store, plan(job, planned.catalogue), progress)


def _prepare(
    job: Job, store: Store, planned: Plan, progress: Callable[[int, int, float], None]
) -> PrepareReport:
    store.write_catalogue(planned.source_id, planned.catalogue)
    _compact(store, planned)
    for place, tried_again in planned.again.items():
        store.release(place, tried_again)
    report = PrepareReport(total=len(planned.catalogue), found=planned.found)
    report.quarantined = list(planned.quarantined.values())
    report.also_quarantined = [
        _naming(part, row) for part, refused in planned.refused.items() for row in refused.values()
    ]
    rows = chain(
        recall(job, store, planned) if planned.recalled.any() else (),
        _rows(job, planned) if planned.heard.any() else (),
    )
    seconds = 0.0
    progress(0, planned.todo, seconds)
    for done, (track, row) in enumerate(rows, start=1):
        seconds += track.duration_s or 0.0
        _count(report, job, store, planned, track, row)
        progress(done, planned.todo, seconds)
    _compact(store, planned)
    report.check()
    if report.found + report.prepared == 0:
        worst = (report.unreachable or report.quarantined)[0]
        mend = "mend that and try again" if report.unreachable else "choose a library with readable music"
        raise UserError(
            f"none of the {report.total} tracks is usable (the first, {worst.uri}: {worst.reason}): {mend}"
        )
    for teacher in job.teachers:
        if isinstance(teacher, StoredConfig) and vectors_hash(teacher) != teacher.version:
            raise UserError(
                "AudioMuse-AI changed its vectors while they were read: run this again, "
                "nothing is fetched twice"
            )
    return report


def _count(
    report: PrepareReport, job: Job, store: Store, planned: Plan, track: Track, row: dict[str, Any]
) -> None:
    """Put a track into the report, and what is at fault into quarantine."""
    first = planned.parts[1]
    faults = [(job.recipe.id, row["stage"], row)] if row["status"] != "prepared" else []
    for answer in row["answers"] or ():
        if answer["status"] != "prepared":
            faults.append((targets_part(answer["teacher"], job.recipe), "teacher", answer))
    # The first teacher cannot use these, as an earlier run found: they are in the report already.
    counted = track.id in planned.quarantined
    for place, stage, why in faults:
        tries = planned.tries(place, track.id)
        entry = Quarantined(track.id, track.uri, track.title, stage, why["reason"], tries)
        bad = why["status"] == "quarantined"
        if bad:
            store.write_quarantine(place, [entry])
        if place in (job.recipe.id, first) and not counted:
            (report.quarantined if bad else report.unreachable).append(entry)
            counted = True
        else:
            (report.also_quarantined if bad else report.also_unreachable).append(_naming(place, entry))
    if not counted and row["wrote"]:
        report.prepared += 1
    elif not counted:
        report.found += 1


def _naming(place: str, row: Quarantined) -> Quarantined:
    """The row with the teacher in its reason, if it was a teacher that found the fault."""
    return replace(row, reason=f"{place.split('/')[1]}: {row.reason}") if row.stage == "teacher" else row


def _check_disk(store: Store, planned: Plan) -> None:
    need = planned.n_bytes
    free = store.free_bytes()
    if free is not None and free < need:
        raise UserError(
            f"too little disk: preparing needs about {need / 1e9:.1f} GB, {store.root} has "
            f"{free / 1e9:.1f} GB free; make room or choose another folder with --home"
        )


def clear_left_behind(root: str) -> None:
    """Remove the temporary files of writers that were killed, below a store in a folder.

    They are never read. What is young may belong to a run elsewhere that is writing now.
    """
    if "://" in root:  # an object store keeps nothing of what was not finished
        return
    for kind in ("features", "targets", "commits", "tracks"):
        for path in Path(root, kind).rglob("*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # another run clears too
                if path.stat().st_mtime < time.time() - LEFT_S:
                    path.unlink()


def _compact(store: Store, planned: Plan) -> None:
    for part in planned.parts:
        store.compact(part)


def _rows(job: Job, planned: Plan) -> Iterator[tuple[Track, dict[str, Any]]]:
    """Run the pipeline; yields each track with its status row, after its shard was committed."""
    options = job.prepare
    there = cluster()
    n_tracks = int(planned.heard.sum())
    n_actors = min(there.cpus, n_tracks)
    # One process asks a server, so that its limits hold for the whole cluster.
    at_a_time = requests_at_a_time(job.source)
    n_fetching = 1 if at_a_time else n_actors
    under_way = at_a_time or options.fetch_concurrency
    n_listening, device = n_actors, "cpu"
    if options.gpus_per_actor:
        n_listening, device = min(n_tracks, int(there.gpus // options.gpus_per_actor)), "cuda"
        if not n_listening:
            raise UserError("prepare.gpus_per_actor asks for a GPU and the cluster has none: set it to 0")
    items = pa.concat_tables(planned.items(planned.heard))
    durations_s = planned.durations_s[planned.heard]
    blocks = _blocks(items, there.cpus, float(durations_s.sum()))
    rows_a_block = -(-len(items) // len(blocks))
    still_s = STILL_S + rows_a_block * float(durations_s.max())
    prepare_context(still_s, spread=not options.gpus_per_actor)
    dataset = (
        ray.data.from_arrow(blocks)
        .map_batches(
            Fetch,
            fn_constructor_args=(job.source, job.cache, options.fetch_attempts, under_way),
            batch_size=None, batch_format="pyarrow",
            # Several blocks are under way, so that the last file of one does not keep the next waiting.
            compute=there.pool(n_fetching, at_a_time=1 + -(-under_way // rows_a_block)),
            num_cpus=FETCH * there.share,
        )
        .map_batches(
            Featurize,
            fn_constructor_args=(
                job.recipe, job.teachers, options.min_duration_s, options.silence_dbfs, device,
            ),
            batch_size=1, batch_format="pyarrow",
            compute=there.pool(n_listening), num_cpus=FEATURIZE * there.share,
            num_gpus=options.gpus_per_actor or None,
        )
        .map_batches(
            write_rows, fn_args=(job.store, job.recipe), batch_size=options.shard_tracks,
            batch_format="pyarrow", compute=ray.data.TaskPoolStrategy(size=n_actors),
            num_cpus=WRITE * there.share,
        )
    )  # fmt: skip
    where = {track_id: row for row, track_id in enumerate(items["track_id"].to_pylist())}
    for row in rows_of(dataset):
        at = where.pop(row["track_id"], None)  # a step that was done again may tell of a track again
        if at is not None:
            yield track_of(items["track"][at].as_py()), row


def _blocks(items: pa.Table, cpus: int, audio_s: float) -> list[pa.Table]:
    """The rows in blocks of nearly the same size, so small that every core gets many."""
    wanted = max(16 * cpus, round(audio_s / BLOCK_S), len(items) // BLOCK_TRACKS)
    n_blocks = min(len(items), MAX_BLOCKS, wanted)
    bounds = np.linspace(0, len(items), n_blocks + 1).astype(int)
    return [items.slice(start, stop - start) for start, stop in pairwise(bounds)]
