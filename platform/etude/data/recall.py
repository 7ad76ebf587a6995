"""Targets of tracks whose features are there, from a teacher that looks vectors up: no audio is fetched."""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from etude.audio.segment import segments_of
from etude.data.plan import Job, Plan
from etude.data.shards import PREPARED, write_rows
from etude.data.store import Store
from etude.errors import BadAudio, OutOfReach
from etude.sources.base import Track
from etude.teachers import build_teacher
from etude.teachers.stored import StoredTeacher


def recall(job: Job, store: Store, planned: Plan) -> Iterator[tuple[Track, dict[str, Any]]]:
    """Write the targets of tracks that need no audio; yields each track with its status row.

    Their lengths are read from the features; what lies in one shard there stays together.
    """
    teacher = build_teacher(job.teacher)
    assert isinstance(teacher, StoredTeacher)
    features, _ = planned.parts
    where = store.committed(features)
    tracks: dict[str, list[Track]] = defaultdict(list)
    for items in planned.items(planned.recalled):
        for text in items["track"].to_pylist():
            track = Track(**json.loads(text))
            tracks[where[track.id]].append(track)
    try:
        for shard, members in tracks.items():
            lengths = store.read_shard(features, shard).select(["track_id", "n_samples"]).to_pylist()
            n_samples = {row["track_id"]: row["n_samples"] for row in lengths}
            rows = [_row(teacher, job, track, n_samples[track.id]) for track in members]
            status = write_rows(pa.Table.from_pylist(rows, schema=PREPARED), job.store, job.recipe)
            yield from zip(members, status.to_pylist(), strict=True)
    finally:
        teacher.close()


def _row(teacher: StoredTeacher, job: Job, track: Track, n_samples: int) -> dict[str, Any]:
    row: dict[str, Any] = {"track_id": track.id, "teacher": teacher.id, "n_samples": n_samples}
    try:
        targets = teacher.recall(track, len(segments_of(n_samples, job.recipe)))
    except BadAudio as error:
        return row | {"status": "quarantined", "stage": "teacher", "reason": str(error)}
    except OutOfReach as error:
        return row | {"status": "unreachable", "stage": "teacher", "reason": str(error)}
    vectors = {"segments": targets.segments.tobytes(), "track": targets.track.tobytes()}
    return row | vectors | {"status": "prepared"}
