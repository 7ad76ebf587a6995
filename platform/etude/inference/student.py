"""An exported student over whole files: bytes in, one vector out."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from pydantic import ValidationError

from etude.audio.decode import check_audible, decode
from etude.audio.recipe import FeatureRecipe, decoder_version
from etude.audio.segment import segments_of
from etude.errors import BadAudio, UserError
from etude.export.onnx import read_metadata, run_onnx, session

BATCH_SIZE = 8  # segments at once
log = logging.getLogger(__name__)


class Student:
    """The waveform form of an exported student, `*_waveform.onnx`.

    Several threads may use one. Raises UserError if the file is missing, damaged, another form, or does not
    say how it was made.
    """

    def __init__(self, path: Path | None, min_duration_s: float, silence_dbfs: float) -> None:
        if path is None:
            raise UserError("no model is given: --model FILE, an exported student_waveform.onnx")
        try:
            content = path.read_bytes()
            record = read_metadata(path)
            self.recipe = FeatureRecipe.model_validate(record["recipe"])
            self._session = session(path)
        except OSError as error:
            raise UserError(f"cannot read the model {path}: {error.strerror}") from None
        except (DecodeError, KeyError, ValidationError):
            raise UserError(f"{path} is not an ONNX file that Étude has exported: choose another") from None
        self._check_form(path)
        self.normalized = bool(record["normalized"])
        self.dim = int(self._session.get_outputs()[0].shape[1])
        self.hash = hashlib.sha256(content).hexdigest()[:16]
        self._min_duration_s = min_duration_s
        self._silence_dbfs = silence_dbfs
        if self.recipe.decoder != decoder_version():
            log.warning(
                "%s was trained with %s, here is %s: its vectors may differ a little",
                path.name, self.recipe.decoder, decoder_version(),
            )  # fmt: skip

    def embed(self, data: bytes) -> NDArray[np.float32]:
        """The vector [dim] of a file: the mean of its segments', of length 1 if the student's are.

        Raises BadAudio for a file that preparing would have put into quarantine.
        """
        audio = decode(data)
        check_audible(audio, self._min_duration_s, self._silence_dbfs)
        samples = audio.resampled(self.recipe.sample_rate)  # the file itself clips and rounds
        segments = segments_of(len(samples), self.recipe)
        vectors = run_onnx(self._session, segments.cut(samples, self.recipe.sample_rate), BATCH_SIZE)
        vector = vectors.mean(axis=0, dtype=np.float64)
        if self.normalized:
            vector /= max(float(np.linalg.norm(vector)), 1e-12)
        if not np.isfinite(vector).all() or not vector.any():
            raise BadAudio("the student's vector for it is not finite or zero")
        return np.asarray(vector, np.float32)

    def _check_form(self, path: Path) -> None:
        inputs: list[onnxruntime.NodeArg] = self._session.get_inputs()
        if [one.name for one in inputs] != ["waveform"]:
            raise UserError(
                f"{path} takes {', '.join(one.name for one in inputs)}: give the file beside it whose name "
                "ends in _waveform.onnx"
            )
