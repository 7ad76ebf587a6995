"""The five exported emotion models as a chain: from sound to an emotion, from that to what music has."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.data.emotion import AnalysisConfig
from etude.data.emotion_analysis import hear
from etude.data.emotion_examples import history_of, inputs_of
from etude.emotion.models import FILES, Model
from etude.emotion.vad import VAD, decode
from etude.errors import UserError
from etude.evaluation.text import read_record
from etude.export.onnx import run_onnx, session

NOTHING = np.zeros((1, 0), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Character:
    """What the models say of an emotion."""

    melody: NDArray[np.float32]  # [128], sums to 1; the tonic is C
    expression: NDArray[np.float32]  # [16], see `etude.emotion.expression.EXPRESSION`
    groove: NDArray[np.float32]  # [32]: onset density and accent of 16 steps


class EmotionModels:
    """The five files of a folder. Raises UserError if one is missing or is another model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions = {name: session(self._file(name)) for name in FILES}

    def hear(self, audio: bytes) -> VAD:
        """The emotion of an audio file, the mean over its windows. Raises BadAudio."""
        record = read_record(self._file("recognizer"))
        windows = hear(audio, AnalysisConfig.model_validate(record["analysis"]))
        embedding = run_onnx(self._sessions["recognizer"], windows, len(windows)).mean(axis=0)
        return VAD(*(float(number) for number in decode(embedding[None])[0]))

    def character(self, vad: VAD) -> Character:
        """What music of this emotion is like."""
        return Character(*(self._answer(name, vad, NOTHING) for name in ("melody", "dynamics", "groove")))

    def next_chord(self, vad: VAD, chords: list[int]) -> NDArray[np.float32]:
        """How likely each of the 64 chords [64] comes after these."""
        return self._answer("harmony", vad, history_of(chords)[None])

    def _answer(self, name: Model, vad: VAD, features: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = inputs_of(name, np.array([vad], dtype=np.float32), features)
        return np.asarray(run_onnx(self._sessions[name], inputs, 1)[0])

    def _file(self, name: Model) -> Path:
        path = self._folder / f"{FILES[name]}.onnx"
        if not path.is_file():
            raise UserError(
                f"there is no {path}: run jobs/train_emotion.py --model all, or name another --models"
            )
        if read_record(path).get("model") != name:
            raise UserError(f"{path} is no {name} model of Étude: export it again, or name another --models")
        return path
