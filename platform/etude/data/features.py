"""The second step of preparing: decode once, and compute the log-mel, the teacher's targets, or both."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etude.audio.decode import check_audible, decode
from etude.audio.mel import log_mel
from etude.audio.mel_torch import log_mel_torch
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.audio.waveform import prepare_waveform
from etude.data.shards import PREPARED
from etude.errors import BadAudio, OutOfReach
from etude.sources.base import Track
from etude.teachers import TeacherConfig, build_teacher


class Featurize:
    """Bytes in, features out; a track whose audio is at fault becomes a row that says why.

    On `device` "cuda" the mel and the teacher run there; decoding and resampling stay on the CPU.
    """

    def __init__(
        self,
        recipe: FeatureRecipe,
        teacher: TeacherConfig,
        min_duration_s: float,
        silence_dbfs: float,
        device: str = "cpu",
    ) -> None:
        self._recipe = recipe
        self._teacher = build_teacher(teacher, device)
        self._device = device
        self._stage = ""  # what a track is going through
        self._min_duration_s = min_duration_s
        self._silence_dbfs = silence_dbfs

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._row(row) for row in batch.to_pylist()], schema=PREPARED)

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        result = {"track_id": row["track_id"]}
        if row["data"] is None:
            return result | {"status": row["status"], "stage": "fetch", "reason": row["reason"]}
        track = Track(**json.loads(row["track"]))
        self._stage = "decode"
        try:
            features = self.features(row["data"], track, row["need_features"], row["need_targets"])
            return result | features | {"status": "prepared", "teacher": self._teacher.id}
        except BadAudio as error:
            return result | {"status": "quarantined", "stage": self._stage, "reason": str(error)}
        except OutOfReach as error:
            return result | {"status": "unreachable", "stage": self._stage, "reason": str(error)}

    def features(self, data: bytes, track: Track, mel: bool, targets: bool) -> dict[str, Any]:
        """What the store keeps of one file. Raises BadAudio."""
        recipe = self._recipe
        audio = decode(data)
        check_audible(audio, self._min_duration_s, self._silence_dbfs)
        waveform = prepare_waveform(audio, recipe)
        result: dict[str, Any] = {"n_samples": len(waveform)}
        if mel:
            on_cpu = self._device == "cpu"
            spectrum = log_mel(waveform, recipe) if on_cpu else log_mel_torch(waveform, recipe, self._device)
            result["frames"] = _finite(spectrum.frames.astype(recipe.dtype), "log-mel").tobytes()
        if targets:
            self._stage = "teacher"
            embedded = self._teacher.embed(audio, segments_of(len(waveform), recipe), track)
            result["segments"] = _finite(embedded.segments, "teacher's vector").astype(np.float32).tobytes()
            result["track"] = _finite(embedded.track, "teacher's vector").astype(np.float32).tobytes()
        return result


def _finite(array: NDArray[Any], what: str) -> NDArray[Any]:
    if not np.isfinite(array).all():
        raise BadAudio(f"its {what} is not finite: some samples are absurdly loud")
    return array
