"""Targets of tracks whose features are there, from teachers that look vectors up: no audio is fetched."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from etude.audio.segment import segments_of
from etude.data.answers import answer
from etude.data.catalogue import track_of
from etude.data.plan import Job, Plan
from etude.data.shards import PREPARED, write_rows
from etude.data.store import Store
from etude.sources.base import Track
from etude.teachers.stored import StoredConfig, StoredTeacher


def recall(job: Job, store: Store, planned: Plan) -> Iterator[tuple[Track, dict[str, Any]]]:
    """Write the targets of tracks that need no audio; yields each track with its status row.

    Their lengths are read from the features; what lies in one shard there stays together.
    """
    teachers = _stored_teachers(job)
    features = planned.parts[0]
    where = store.committed(features)
    missing: dict[str, list[tuple[Track, list[bool]]]] = defaultdict(list)
    for items in planned.items(planned.recalled):
        texts, needed = items["track"].to_pylist(), items["need_targets"].to_pylist()
        for text, asked in zip(texts, needed, strict=True):
            track = track_of(text)
            missing[where[track.id]].append((track, asked))
    try:
        for shard, members in missing.items():
            lengths = store.read_shard(features, shard).select(["track_id", "n_samples"]).to_pylist()
            n_samples = {row["track_id"]: row["n_samples"] for row in lengths}
            rows = [_row(teachers, asked, job, track, n_samples[track.id]) for track, asked in members]
            status = write_rows(pa.Table.from_pylist(rows, schema=PREPARED), job.store, job.recipe)
            yield from zip([track for track, _ in members], status.to_pylist(), strict=True)
    finally:
        for teacher in teachers.values():
            teacher.close()


def _stored_teachers(job: Job) -> dict[int, StoredTeacher]:
    """The teachers that look their vectors up, by their place among all."""
    return {
        number: StoredTeacher(config)
        for number, config in enumerate(job.teachers)
        if isinstance(config, StoredConfig)
    }


def _row(
    teachers: Mapping[int, StoredTeacher], asked: Sequence[bool], job: Job, track: Track, n_samples: int
) -> dict[str, Any]:
    n_segments = len(segments_of(n_samples, job.recipe))
    answers = [
        answer(teachers[number].id, partial(teachers[number].recall, track, n_segments))
        for number, wanted in enumerate(asked)
        if wanted
    ]
    return {"track_id": track.id, "status": "prepared", "n_samples": n_samples, "answers": answers}
