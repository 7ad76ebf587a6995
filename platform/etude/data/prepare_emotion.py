"""A Ray Data pipeline from pieces to rows in the store: list, read, measure, write.

One row is one piece until it is written. A piece whose audio or notes are at fault goes to quarantine with
its reason, and costs no other; one that cannot be read now is reported, and tried again by the next run.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from etude.data.emotion import ROWS, AnalysisConfig
from etude.data.emotion_analysis import ANALYSED, Analyse
from etude.data.ray_data import cluster, prepare_context, rows_of
from etude.data.store import Quarantined, Store
from etude.errors import UserError
from etude.sources.described import PassedOver
from etude.sources.pieces import PieceSourceConfig, build_piece_source
from etude.sources.pieces.base import Piece, piece_to_json

SHARD_PIECES = 32


@dataclass(frozen=True)
class EmotionJob:
    """What preparing needs to know; it travels to the actors."""

    store: str
    cache: Path
    source: PieceSourceConfig
    analysis: AnalysisConfig
    retry_quarantined: bool = False


@dataclass
class EmotionReport:
    """What a run did; every piece is in exactly one of the counts."""

    total: int
    found: int = 0  # there before
    prepared: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    unreachable: list[Quarantined] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)  # what the source left out

    def check(self) -> None:
        """Rows in must equal rows out plus quarantined plus out of reach."""
        out = self.found + self.prepared + len(self.quarantined) + len(self.unreachable)
        assert out == self.total, f"{self.total} pieces went in, {out} came out"


@dataclass(frozen=True)
class EmotionPlan:
    """The pieces of a source, and those of them that are missing."""

    source_id: str
    pieces: tuple[Piece, ...]
    missing: tuple[Piece, ...]
    again: tuple[str, ...]  # ids of those that leave quarantine
    quarantined: tuple[Quarantined, ...]
    passed_over: PassedOver


def plan_emotion(job: EmotionJob) -> EmotionPlan:
    """List the source and find what is missing, writing nothing. Raises UserError if it has no pieces."""
    source, passed_over = build_piece_source(job.source, job.cache), PassedOver()
    pieces = tuple(source.pieces(passed_over))
    if not pieces:
        raise UserError(f"{source.id} has no pieces ({'; '.join(passed_over)}): choose another source")
    return _compare(job, source.id, pieces, passed_over)


def _compare(
    job: EmotionJob, source_id: str, pieces: tuple[Piece, ...], passed_over: PassedOver
) -> EmotionPlan:
    store, part = Store(job.store), job.analysis.part
    there, bad = store.committed(part), store.quarantined(part)
    left_alone = {} if job.retry_quarantined else bad
    missing = tuple(
        piece for piece in pieces if piece.track.id not in there and piece.track.id not in left_alone
    )
    ids = {piece.track.id for piece in pieces}
    return EmotionPlan(
        source_id,
        pieces,
        missing,
        tuple(piece.track.id for piece in missing if piece.track.id in bad),
        tuple(row for track_id, row in left_alone.items() if track_id in ids - there.keys()),
        passed_over,
    )


def prepare_emotion(
    job: EmotionJob, progress: Callable[[int, int], None], planned: EmotionPlan | None = None
) -> EmotionReport:
    """Prepare what is missing of the pieces `planned`. Needs a Ray session, unless nothing is.

    Raises UserError if another run prepares the same, or no piece at all is usable.
    """
    planned = planned or plan_emotion(job)
    store = Store(job.store)
    if not planned.missing:
        return _prepare(job, store, planned, progress)
    with store.held(job.analysis.part):
        # What another run has prepared since then is not prepared again.
        now = _compare(job, planned.source_id, planned.pieces, planned.passed_over)
        return _prepare(job, store, now, progress)


def _prepare(
    job: EmotionJob, store: Store, planned: EmotionPlan, progress: Callable[[int, int], None]
) -> EmotionReport:
    part = job.analysis.part
    store.write_catalogue(planned.source_id, [piece.track for piece in planned.pieces])
    found = len(planned.pieces) - len(planned.missing) - len(planned.quarantined)
    report = EmotionReport(len(planned.pieces), found, quarantined=list(planned.quarantined))
    report.passed_over = planned.passed_over
    before = store.quarantined(part)
    left, todo = {piece.track.id: piece.track for piece in planned.missing}, len(planned.missing)
    progress(0, todo)
    for row in _rows(job, planned) if todo else ():
        track = left.pop(row["track_id"], None)
        if track is None:  # a step that was done again may tell of a piece again
            continue
        if row["status"] == "prepared":
            report.prepared += 1
            store.release(part, [track.id] if track.id in before else [])
        else:
            tries = before[track.id].attempts + 1 if track.id in before else 1
            entry = Quarantined(track.id, track.uri, track.title, row["stage"], row["reason"], tries)
            if row["status"] == "quarantined":
                store.write_quarantine(part, [entry])
                report.quarantined.append(entry)
            else:
                report.unreachable.append(entry)
        progress(todo - len(left), todo)
    report.check()
    if report.found + report.prepared == 0:
        worst = (report.unreachable or report.quarantined)[0]
        raise UserError(
            f"none of the {report.total} pieces is usable (the first, {worst.uri}: {worst.reason}): "
            "choose a source with readable music"
        )
    return report


def _rows(job: EmotionJob, planned: EmotionPlan) -> Iterator[dict[str, str]]:
    """Run the pipeline; yields what became of each piece, after its shard was committed."""
    there = cluster()
    prepare_context()
    items = [{"piece": piece_to_json(piece)} for piece in planned.missing]
    dataset = (
        ray.data.from_items(items, override_num_blocks=min(len(items), 16 * there.cpus))
        .map_batches(
            Analyse,
            fn_constructor_args=(job.source, job.cache, job.analysis),
            batch_size=4, batch_format="pyarrow",
            compute=there.pool(min(there.cpus, len(items))), num_cpus=0.8 * there.share,
        )
        .map_batches(
            _write, fn_args=(job.store, job.analysis.part), batch_size=SHARD_PIECES,
            batch_format="pyarrow", num_cpus=0.2 * there.share,
        )
    )  # fmt: skip
    yield from rows_of(dataset)


def _write(batch: pa.Table, store: str, part: str) -> pa.Table:
    """Write one shard of what was prepared; what became of each piece goes on."""
    prepared = batch.filter(pc.equal(batch["status"], "prepared"))
    if prepared.num_rows:
        Store(store).write_shard(part, prepared.select(ROWS.names))
    return batch.select(ANALYSED.names[:4])
