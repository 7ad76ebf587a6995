"""One Ray Data pipeline from a source to the store: list, fetch, decode, segment, mel, teacher, write.

One row is one track until it is written. A track whose audio is at fault becomes a quarantine row and
costs no other track; a track that cannot be fetched now is reported and tried again by the next run.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.data
from pydantic import Field

from etude.audio.recipe import FeatureRecipe
from etude.cli import duration
from etude.config import Section
from etude.data.features import Featurize
from etude.data.fetch import Fetch
from etude.data.shards import write_rows
from etude.data.store import Quarantined, Store, features_part, targets_part
from etude.errors import UserError
from etude.sources import SourceConfig, build_source
from etude.sources.base import Track
from etude.teachers import TeacherConfig, build_teacher


class PrepareConfig(Section):
    """How tracks are prepared; nothing here changes a feature."""

    min_duration_s: float = Field(3.5, gt=0, description="shorter tracks go to quarantine")
    silence_dbfs: float = Field(-60.0, lt=0, description="tracks whose peak stays below go to quarantine")
    shard_tracks: int = Field(8, ge=1, description="tracks a shard")
    fetch_attempts: int = Field(3, ge=1, description="tries before a track counts as out of reach")
    fetch_concurrency: int = Field(4, ge=1, description="tracks that one fetching actor has under way")
    gpus_per_actor: float = Field(
        0, ge=0, description="share of a GPU that mel and teacher get; 0: they run on the CPU"
    )
    retry_quarantined: bool = Field(False, description="try the tracks in quarantine again")


@dataclass(frozen=True)
class Job:
    """What every step of the pipeline needs to know; it travels to the actors."""

    store: str
    cache: Path
    source: SourceConfig
    recipe: FeatureRecipe
    teacher: TeacherConfig
    prepare: PrepareConfig


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    tracks: list[Track]
    todo: list[tuple[Track, bool, bool]]  # track, needs features, needs targets
    quarantined: dict[str, Quarantined]

    @property
    def seconds(self) -> float:
        """Known audio that is still to be prepared."""
        return sum(track.duration_s or 0.0 for track, _, _ in self.todo)

    @property
    def n_bytes(self) -> float:
        """Disk that preparing needs: features, targets, and files that are kept on the way."""
        return self.seconds * BYTES_A_SECOND

    def describe(self, n_cpus: int) -> str:
        """Tracks, hours, bytes and estimated time, for `--plan`."""
        total = sum(track.duration_s or 0.0 for track in self.tracks)
        found = len(self.tracks) - len(self.todo) - len(self.quarantined)
        return (
            f"library: {len(self.tracks)} tracks, {total / 3600:.2f} hours\n"
            f"prepared before: {found}, in quarantine: {len(self.quarantined)}\n"
            f"to prepare: {len(self.todo)} tracks, {self.seconds / 3600:.2f} hours, "
            f"{self.n_bytes / 1e9:.2f} GB, about {duration(self.seconds / SPEED / n_cpus)} on {n_cpus} cores"
        )


@dataclass
class PrepareReport:
    """What a run did. Every track is in exactly one of the four counts."""

    total: int
    found: int = 0  # there before
    prepared: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    unreachable: list[Quarantined] = field(default_factory=list)

    def check(self) -> None:
        """Rows in must equal rows out plus quarantined plus out of reach."""
        out = self.found + self.prepared + len(self.quarantined) + len(self.unreachable)
        assert out == self.total, f"{self.total} tracks went in, {out} came out"


BLOCK_TRACKS = 4  # tracks that travel together: few, so that the last actor is not waited for long
BYTES_A_SECOND = 30_000  # of audio: fp16 mel at 100 frames of 128 bands, edges of segments, targets
SPEED = 20.0  # times real time on one core, fetching the demo library included (benchmarks/README.md)


def plan(job: Job) -> Plan:
    """List the source, note it in the catalogue, and find what is missing. Starts nothing."""
    store = Store(job.store)
    source = build_source(job.source, job.cache)
    tracks = list(source.tracks())
    if not tracks:
        raise UserError(f"{source.id} has no tracks: choose another library")
    store.write_catalogue(source.id, tracks)
    teacher_id = build_teacher(job.teacher).id
    features = store.committed(features_part(job.recipe))
    targets = store.committed(targets_part(teacher_id, job.recipe))
    ids = {track.id for track in tracks}
    bad = {key: row for key, row in store.quarantined(job.recipe.id).items() if key in ids}
    skip = {} if job.prepare.retry_quarantined else bad
    todo = [
        (track, track.id not in features, track.id not in targets)
        for track in tracks
        if (track.id not in features or track.id not in targets) and track.id not in skip
    ]
    return Plan(tracks, todo, skip)


def prepare(job: Job, progress: Callable[[int, int, float], None]) -> PrepareReport:
    """Prepare what is missing. Needs a Ray session, unless nothing is missing.

    `progress(done, total, audio_seconds)` is called as shards are committed. Raises UserError if the disk
    is too small or no track at all is usable.
    """
    planned = plan(job)
    store = Store(job.store)
    _check_disk(store, planned)
    report = PrepareReport(total=len(planned.tracks))
    report.quarantined = list(planned.quarantined.values())
    report.found = len(planned.tracks) - len(planned.todo) - len(planned.quarantined)
    if job.prepare.retry_quarantined:
        bad = store.quarantined(job.recipe.id)
        attempts = {key: row.attempts for key, row in bad.items()}
        store.release(job.recipe.id, [track.id for track, _, _ in planned.todo if track.id in bad])
    else:
        attempts = {}
    tracks = {track.id: track for track, _, _ in planned.todo}
    seconds = 0.0
    progress(0, len(tracks), seconds)
    for done, row in enumerate(_rows(job, planned.todo) if planned.todo else (), start=1):
        track = tracks[row["track_id"]]
        seconds += track.duration_s or 0.0
        if row["status"] == "prepared":
            report.prepared += 1
        else:
            tries = attempts.get(track.id, 0) + 1
            entry = Quarantined(track.id, track.uri, track.title, row["stage"], row["reason"], tries)
            if row["status"] == "quarantined":
                store.write_quarantine(job.recipe.id, [entry])
                report.quarantined.append(entry)
            else:
                report.unreachable.append(entry)
        progress(done, len(tracks), seconds)
    report.check()
    if report.found + report.prepared == 0:
        worst = (report.quarantined or report.unreachable)[0]
        raise UserError(
            f"none of the {report.total} tracks is usable (the first, {worst.uri}: {worst.reason}): "
            "choose a library with readable music"
        )
    return report


def _check_disk(store: Store, planned: Plan) -> None:
    need = planned.n_bytes
    free = store.free_bytes()
    if free is not None and free < need:
        raise UserError(
            f"too little disk: preparing needs about {need / 1e9:.1f} GB, {store.root} has "
            f"{free / 1e9:.1f} GB free; make room or choose another folder with --home"
        )


def _rows(job: Job, todo: Sequence[tuple[Track, bool, bool]]) -> Iterator[dict[str, Any]]:
    """Run the pipeline; yields one status row a track, after its shard was committed."""
    options = job.prepare
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    n_actors = min(cpus, len(todo))
    if options.gpus_per_actor:
        n_listening = int(ray.cluster_resources().get("GPU", 0) // options.gpus_per_actor)
        if not n_listening:
            raise UserError("prepare.gpus_per_actor asks for a GPU and the cluster has none: set it to 0")
        device = "cuda"
    else:
        n_listening, device = n_actors, "cpu"
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # reading each actor's page tables costs 2 % of a core
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # `progress` says what there is to say
    items = [
        {
            "track_id": track.id,
            "track": json.dumps(dataclasses.asdict(track)),
            "need_features": features,
            "need_targets": targets,
        }
        for track, features, targets in todo
    ]
    n_blocks = min(len(items), max(16 * cpus, len(items) // BLOCK_TRACKS))
    dataset = (
        ray.data.from_items(items, override_num_blocks=n_blocks)
        .map_batches(
            Fetch,
            fn_constructor_args=(job.source, job.cache, options.fetch_attempts, options.fetch_concurrency),
            batch_size=1, batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=n_actors), num_cpus=0.3,
        )
        .map_batches(
            Featurize,
            fn_constructor_args=(
                job.recipe, job.teacher, options.min_duration_s, options.silence_dbfs, device,
            ),
            batch_size=1, batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=n_listening), num_cpus=0.5,
            num_gpus=options.gpus_per_actor or None,
        )
        .map_batches(
            write_rows, fn_args=(job.store, job.recipe), batch_size=options.shard_tracks,
            batch_format="pyarrow", num_cpus=0.2,
        )
    )  # fmt: skip
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from batch.to_pylist()
