"""What preparing would do: list the source, find what is missing, and write nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

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
from etude.teachers import StoredConfig, TeacherConfig, build_teacher


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


FEATURE_BYTES_A_SECOND = 29_000  # of audio: fp16 mel at 100 frames of 128 bands, and the edges of segments
TARGET_BYTES_A_SECOND = 1_000  # of audio: vectors every 5 s
SPEED = 20.0  # times real time on one core, fetching the demo library included (benchmarks/README.md)
TYPICAL_S = 240.0  # a track's length where a source knows none


@dataclass(frozen=True)
class Plan:
    """What a run would do; `need_*` [n_tracks] are false for tracks that it leaves alone."""

    source_id: str
    parts: tuple[str, str]  # features, targets
    catalogue: Catalogue
    need_features: NDArray[np.bool_]
    need_targets: NDArray[np.bool_]
    listens: bool  # the teacher needs the audio
    quarantined: Mapping[str, Quarantined]  # by track id: left alone
    again: Mapping[str, Quarantined]  # by track id: in quarantine, but tried once more

    @cached_property
    def missing(self) -> NDArray[np.bool_]:
        """Which of the tracks [n_tracks] are to be prepared."""
        return self.need_features | self.need_targets

    @cached_property
    def recalled(self) -> NDArray[np.bool_]:
        """Which of those need no audio: the features are there, and the teacher does not listen."""
        return self.need_targets & ~self.need_features & (not self.listens)

    @cached_property
    def heard(self) -> NDArray[np.bool_]:
        """Which of those need their audio."""
        return self.missing & ~self.recalled

    @property
    def todo(self) -> int:
        """How many tracks are to be prepared."""
        return int(self.missing.sum())

    @property
    def found(self) -> int:
        """How many tracks were prepared before."""
        return len(self.catalogue) - self.todo - len(self.quarantined)

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
        targets_s = float(self.durations_s[self.need_targets].sum())
        return features_s * FEATURE_BYTES_A_SECOND + targets_s * TARGET_BYTES_A_SECOND

    def items(self, chosen: NDArray[np.bool_]) -> Iterator[pa.Table]:
        """The chosen [n_tracks] of the tracks, as the pipeline wants them, some thousand rows at a time."""
        start = 0
        for batch in self.catalogue.batches():
            rows = slice(start, start + batch.num_rows)
            start = rows.stop
            features, targets = self.need_features[rows], self.need_targets[rows]
            table = pa.table(
                {
                    "track_id": batch["track_id"],
                    "track": batch["track"],
                    "need_features": features,
                    "need_targets": targets,
                }
            )
            yield table.filter(pa.array(chosen[rows]))

    def describe(self, n_cpus: int) -> str:
        """Tracks, hours, bytes and estimated time, for `--plan`."""
        guessed = self.catalogue.durations_s.null_count
        note = f" (the length of {guessed} tracks is a guess)" if guessed else ""
        return (
            f"library: {len(self.catalogue)} tracks, {self.durations_s.sum() / 3600:.2f} hours{note}\n"
            f"prepared before: {self.found}, in quarantine: {len(self.quarantined)}\n"
            f"to prepare: {self.todo} tracks, {self.seconds / 3600:.2f} hours, "
            f"{self.n_bytes / 1e9:.2f} GB, about {duration(self.seconds / SPEED / n_cpus)} on {n_cpus} cores"
        )


def plan(job: Job) -> Plan:
    """List the job's source and find what is missing. Raises UserError if it has no tracks."""
    source = build_source(job.source, job.cache)
    parts = features_part(job.recipe), targets_part(build_teacher(job.teacher).id, job.recipe)
    listens = not isinstance(job.teacher, StoredConfig)
    return compare(source, Store(job.store), parts, job.recipe.id, job.prepare.retry_quarantined, listens)


def compare(
    source: Source, store: Store, parts: tuple[str, str], recipe_id: str, again: bool, listens: bool = True
) -> Plan:
    """What a store lacks of a source in two parts, features and targets; `again` tries quarantined tracks."""
    catalogue = Catalogue.of(source.tracks())
    if not len(catalogue):
        raise UserError(f"{source.id} has no tracks: choose another library")
    need_features, need_targets = (~_among(catalogue.ids, store.commits(part)["track_id"]) for part in parts)
    # What a teacher could not use says nothing about another.
    bad = store.quarantined(parts[1]) | store.quarantined(recipe_id)
    in_quarantine = _among(catalogue.ids, pa.array(bad, pa.string()))
    if not again:
        need_features &= ~in_quarantine
        need_targets &= ~in_quarantine
    retried = in_quarantine & (need_features | need_targets)
    left_alone = in_quarantine & (not again)
    return Plan(
        source.id,
        parts,
        catalogue,
        need_features,
        need_targets,
        listens,
        quarantined={track_id: bad[track_id] for track_id in catalogue.ids.filter(left_alone).to_pylist()},
        again={track_id: bad[track_id] for track_id in catalogue.ids.filter(retried).to_pylist()},
    )


def _among(ids: pa.ChunkedArray, known: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = pc.is_in(ids, value_set=known).to_numpy()
    return found
