"""The second step of preparing: decode once, and compute the log-mel, teachers' targets, or both."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etude.audio.decode import Audio, check_audible, decode
from etude.audio.mel import log_mel
from etude.audio.mel_torch import log_mel_torch
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.audio.waveform import prepare_waveform
from etude.data.answers import answer, finite
from etude.data.catalogue import track_of
from etude.data.shards import PREPARED
from etude.errors import BadAudio
from etude.sources.base import Track
from etude.teachers import TeacherConfig, build_teacher


class Featurize:
    """Bytes in, features out; a track whose audio is at fault becomes a row that says why.

    On `device` "cuda" the mel and the teachers run there; decoding and resampling stay on the CPU.
    """

    def __init__(
        self,
        recipe: FeatureRecipe,
        teachers: Sequence[TeacherConfig],
        min_duration_s: float,
        silence_dbfs: float,
        device: str = "cpu",
    ) -> None:
        self._recipe = recipe
        self._teachers = [build_teacher(teacher, device) for teacher in teachers]
        self._device = device
        self._min_duration_s = min_duration_s
        self._silence_dbfs = silence_dbfs

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._row(row) for row in batch.to_pylist()], schema=PREPARED)

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        result = {"track_id": row["track_id"]}
        if row["data"] is None:
            return result | {"status": row["status"], "stage": "fetch", "reason": row["reason"]}
        track = track_of(row["track"])
        try:
            features = self.features(row["data"], track, row["need_features"], row["need_targets"])
        except BadAudio as error:
            return result | {"status": "quarantined", "stage": "decode", "reason": str(error)}
        if not row["has_targets"] and all(one["status"] != "prepared" for one in features["answers"]):
            features.pop("frames", None)  # a mel without any targets serves nobody
        return result | features | {"status": "prepared"}

    def features(self, data: bytes, track: Track, mel: bool, targets: Sequence[bool]) -> dict[str, Any]:
        """What the store keeps of one file; `targets` says which teachers are asked. Raises BadAudio."""
        recipe = self._recipe
        audio = decode(data)
        check_audible(audio, self._min_duration_s, self._silence_dbfs)
        if sum(targets) > 1:
            audio = _Shared(audio.samples, audio.sample_rate)
        waveform = prepare_waveform(audio, recipe)
        result: dict[str, Any] = {"n_samples": len(waveform)}
        if mel:
            on_cpu = self._device == "cpu"
            spectrum = log_mel(waveform, recipe) if on_cpu else log_mel_torch(waveform, recipe, self._device)
            result["frames"] = finite(spectrum.frames.astype(recipe.dtype), "log-mel").tobytes()
        segments = segments_of(len(waveform), recipe)
        result["answers"] = [
            answer(teacher.id, partial(teacher.embed, audio, segments, track))
            for teacher, asked in zip(self._teachers, targets, strict=True)
            if asked
        ]
        return result


class _Shared(Audio):
    """Audio for several listeners: each rate is computed once, and every one gets a copy of its own."""

    @cached_property
    def _at_rate(self) -> dict[int, NDArray[np.float32]]:
        return {}

    def resampled(self, sample_rate: int) -> NDArray[np.float32]:
        if sample_rate == self.sample_rate:
            return self.samples
        if sample_rate not in self._at_rate:
            self._at_rate[sample_rate] = super().resampled(sample_rate)
        return self._at_rate[sample_rate].copy()  # some listeners work in place
