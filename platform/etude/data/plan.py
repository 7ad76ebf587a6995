"""What preparing would do: list the source, find what is missing, and write nothing."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from etude.audio.recipe import FeatureRecipe
from etude.cli import duration
from etude.config import Section
from etude.data.catalogue import Catalogue
from etude.data.store import Quarantined, Store, features_part, targets_part
from etude.errors import UserError
from etude.sources import SourceConfig, build_source
from etude.sources.base import Source
from etude.teachers import AudioSpaceConfig, StoredConfig, TeacherConfig, build_teacher


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
    also: tuple[TeacherConfig, ...] = Field((), description="more teachers that hear the same decoded audio")


@dataclass(frozen=True)
class Job:
    """What every step of the pipeline needs to know; it travels to the actors."""

    store: str
    cache: Path
    source: SourceConfig
    recipe: FeatureRecipe
    teachers: tuple[TeacherConfig, ...]  # the first is the one that a student learns from
    prepare: PrepareConfig

    def __post_init__(self) -> None:
        if not self.teachers:
            raise ValueError("a job without a teacher has nothing to prepare: name at least one")


FEATURE_BYTES_A_SECOND = 29_000  # of audio: fp16 mel at 100 frames of 128 bands, and the edges of segments
TARGET_BYTES_A_SECOND = 1_000.0  # of audio: vectors every 5 s
# Times real time on one core with MusiCNN alone, fetching the demo library included (benchmarks/README.md).
SPEED = 20.0
TYPICAL_S = 240.0  # a track's length where a source knows none


@dataclass(frozen=True)
class Plan:
    """What a run would do; `need_*` are false for what it leaves alone.

    The mel is needed where some teacher can use the track: bad audio is in quarantine for all of them,
    what one teacher could not use only for that one.
    """

    source_id: str
    recipe_id: str
    parts: tuple[str, ...]  # features, then each teacher's targets
    catalogue: Catalogue
    need_features: NDArray[np.bool_]  # [n_tracks]
    need_targets: NDArray[np.bool_]  # [n_tracks, n_teachers]
    has_targets: NDArray[np.bool_]  # [n_tracks]: those of some teacher are there
    listens: NDArray[np.bool_]  # [n_teachers]: needs the audio
    target_bytes: NDArray[np.float64]  # [n_teachers]: of its vectors for a second of audio
    quarantined: Mapping[str, Quarantined]  # by track id: left alone, at least by the first teacher
    refused: Mapping[str, Mapping[str, Quarantined]]  # by part of another teacher: left alone by that one
    again: Mapping[str, Mapping[str, Quarantined]]  # by place: in quarantine there, but tried once more

    @cached_property
    def missing(self) -> NDArray[np.bool_]:
        """Which of the tracks [n_tracks] are to be prepared."""
        return self.need_features | self.need_targets.any(axis=1)

    @cached_property
    def heard(self) -> NDArray[np.bool_]:
        """Which of those need their audio."""
        return self.need_features | self.need_targets[:, self.listens].any(axis=1)

    @cached_property
    def recalled(self) -> NDArray[np.bool_]:
        """Which of those need none: the features are there, and no teacher that lacks targets listens."""
        return self.missing & ~self.heard

    @property
    def todo(self) -> int:
        """How many tracks are to be prepared."""
        return int(self.missing.sum())

    @property
    def found(self) -> int:
        """How many tracks were prepared before."""
        # A track that the first teacher cannot use may be prepared for another: it is still in quarantine.
        set_aside = _among(self.catalogue.ids, pa.array(self.quarantined, pa.string()))
        return len(self.catalogue) - int((self.missing | set_aside).sum())

    def tries(self, place: str, track_id: str) -> int:
        """How often a track that is at fault now was tried: by this place of quarantine, or for its audio."""
        counts = (
            rows[track_id].attempts
            for where, rows in self.again.items()
            if track_id in rows and (where == place or self.recipe_id in (where, place))
        )
        return 1 + max(counts, default=0)

    @cached_property
    def durations_s(self) -> NDArray[np.float64]:
        """Each track's length [n_tracks]; where it is not known, the mean of those that are."""
        known = pc.mean(self.catalogue.durations_s).as_py()
        filled = pc.fill_null(self.catalogue.durations_s, TYPICAL_S if known is None else known)
        array: NDArray[np.float64] = filled.to_numpy()
        return array

    @property
    def seconds(self) -> float:
        """Audio that is still to be fetched and heard."""
        return float(self.durations_s[self.heard].sum())

    @property
    def n_bytes(self) -> float:
        """Disk that preparing needs: features, targets, and files that are kept on the way."""
        features_s = float(self.durations_s[self.need_features].sum())
        targets_s = self.durations_s @ self.need_targets
        return features_s * FEATURE_BYTES_A_SECOND + float(targets_s @ self.target_bytes)

    def items(self, chosen: NDArray[np.bool_]) -> Iterator[pa.Table]:
        """The chosen [n_tracks] of the tracks, as the pipeline wants them, some thousand rows at a time."""
        start = 0
        for batch in self.catalogue.batches():
            rows = slice(start, start + batch.num_rows)
            start = rows.stop
            n_teachers = self.need_targets.shape[1]
            need_targets = pa.FixedSizeListArray.from_arrays(self.need_targets[rows].ravel(), n_teachers)
            table = pa.table(
                {
                    "track_id": batch["track_id"],
                    "track": batch["track"],
                    "need_features": self.need_features[rows],
                    "need_targets": need_targets,
                    "has_targets": self.has_targets[rows],
                }
            )
            yield table.filter(pa.array(chosen[rows]))

    def describe(self, n_cpus: int) -> str:
        """Tracks, hours, bytes and estimated time, for `--plan`."""
        guessed = self.catalogue.durations_s.null_count
        refused = sum(map(len, self.refused.values()))
        others = f", {refused} times for another teacher" if refused else ""
        note = f" (the length of {guessed} tracks is a guess)" if guessed else ""
        return (
            f"library: {len(self.catalogue)} tracks, {self.durations_s.sum() / 3600:.2f} hours{note}\n"
            f"prepared before: {self.found}, in quarantine: {len(self.quarantined)}{others}\n"
            f"to prepare: {self.todo} tracks, {self.seconds / 3600:.2f} hours, "
            f"{self.n_bytes / 1e9:.2f} GB, about {duration(self.seconds / SPEED / n_cpus)} on {n_cpus} cores"
        )


def plan(job: Job, catalogue: Catalogue | None = None) -> Plan:
    """List the job's source, unless its `catalogue` is here, and find what is missing.

    Raises UserError if it has no tracks.
    """
    source = build_source(job.source, job.cache)
    ids = [build_teacher(teacher).id for teacher in job.teachers]
    if twice := [teacher_id for teacher_id in ids if ids.count(teacher_id) > 1]:
        raise UserError(
            f"two of the teachers are the same, {twice[0]}: take one out of prepare.also, "
            "which names teachers beside the one under teacher"
        )
    targets = [targets_part(teacher_id, job.recipe) for teacher_id in ids]
    configured = dict(zip(targets, job.teachers, strict=True))
    stored = {part for part, teacher in configured.items() if isinstance(teacher, StoredConfig)}
    heavy = {
        part: teacher.bytes_a_second
        for part, teacher in configured.items()
        if isinstance(teacher, AudioSpaceConfig)
    }
    parts = (features_part(job.recipe), *targets)
    again = job.prepare.retry_quarantined
    return compare(source, Store(job.store), parts, job.recipe.id, again, stored, heavy, catalogue)


def compare(
    source: Source,
    store: Store,
    parts: tuple[str, ...],
    recipe_id: str,
    again: bool,
    stored: Collection[str] = (),
    target_bytes: Mapping[str, float] = MappingProxyType({}),
    catalogue: Catalogue | None = None,
) -> Plan:
    """What a store lacks of a source in its parts: features, and the targets of one or more teachers.

    `again` tries quarantined tracks; `stored` are the parts of teachers that look their vectors up;
    `target_bytes` says what a second of audio takes in parts where that is unusual; `catalogue` is the
    source's, if it was listed just now.
    """
    catalogue = Catalogue.of(source.tracks()) if catalogue is None else catalogue
    if not len(catalogue):
        raise UserError(f"{source.id} has no tracks: choose another library")
    ids, targets = catalogue.ids, parts[1:]
    features, *vectors = (_among(ids, store.commits(part)["track_id"]) for part in parts)
    places = (recipe_id, *targets)
    bad = {place: store.quarantined(place) for place in places}
    at_fault = {place: _among(ids, pa.array(rows, pa.string())) for place, rows in bad.items()}
    has_targets = np.stack(vectors, axis=1)
    need_features, need_targets = ~features, ~has_targets
    if not again:
        unusable = np.stack([at_fault[recipe_id] | at_fault[part] for part in targets], axis=1)
        need_targets &= ~unusable
        need_features &= ~unusable.all(axis=1)
    missing = need_features | need_targets.any(axis=1)

    def chosen(place: str, where: NDArray[np.bool_]) -> dict[str, Quarantined]:
        found = ids.filter(pa.array(at_fault[place] & where)).to_pylist()
        return {track_id: bad[place][track_id] for track_id in found}

    alone = np.full(len(catalogue), not again)
    return Plan(
        source.id,
        recipe_id,
        parts,
        catalogue,
        need_features,
        need_targets,
        np.asarray(has_targets.any(axis=1)),
        listens=np.array([part not in stored for part in targets]),
        target_bytes=np.array([target_bytes.get(part, TARGET_BYTES_A_SECOND) for part in targets]),
        quarantined=chosen(targets[0], alone) | chosen(recipe_id, alone),
        refused={part: chosen(part, alone & ~at_fault[recipe_id]) for part in targets[1:]},
        again={place: chosen(place, missing & again) for place in places},
    )


def _among(ids: pa.ChunkedArray, known: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(ids, value_set=known).to_numpy()
    return found
