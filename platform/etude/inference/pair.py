"""The two encoders of one music-text run, opened only if they belong together."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from tokenizers import Tokenizer

from etude.audio.mel import log_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.waveform import prepare_waveform
from etude.data.batches import Features
from etude.errors import UserError
from etude.evaluation.text import TextFile, read_record
from etude.export.onnx import run_onnx, session
from etude.inference.audio_file import read_audio
from etude.inference.nearest import library_vectors, weights_hash
from etude.inference.student import BATCH_SIZE

MUSIC, TEXT = "music_encoder.onnx", "text_encoder.onnx"
_UNKNOWN = frozenset({"[UNK]", "<unk>"})  # BERT's and RoBERTa's
_NO_PROGRESS: Callable[[int, int, float], None] = lambda done, total, audio_s: None  # noqa: E731


class Pair:
    """A music and a text encoder whose vectors may be compared; `open_pair` makes one."""

    def __init__(self, music: Path, text: TextFile, recipe: FeatureRecipe) -> None:
        self.music = music
        self.folder = music.parent
        self.recipe = recipe
        self.hash = weights_hash(music)  # of the music encoder: names what was made with it
        self._session = session(music)
        self._text = text
        self._tokenizer = Tokenizer.from_str(text.tokens.content.decode())

    def text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim]. Raises UserError if a text is empty, too long, or no text at all."""
        for text in texts:
            if not self._pieces(text):
                raise UserError('the query is empty: say how the music sounds, as in "slow piano"')
        return self._text.embed(texts)

    def knows(self, text: str) -> bool:
        """Whether at least a piece of a text is in the vocabulary; if not, its vector says nothing."""
        return any(piece not in _UNKNOWN for piece in self._pieces(text))

    def tracks(
        self,
        rows: Sequence[Features],
        cache: Path,
        progress: Callable[[int, int, float], None] = _NO_PROGRESS,
    ) -> NDArray[np.float32]:
        """Vectors [n, dim] of prepared tracks, as `library_vectors` computes and keeps them.

        Raises UserError if the encoder gives what are no numbers.
        """
        vectors = library_vectors(self.music, rows, cache, progress)
        if not np.isfinite(vectors).all():
            raise UserError(f"{self.music} gives vectors that are not finite: it is damaged, export it again")
        return vectors

    def file(self, path: Path) -> NDArray[np.float32]:
        """The vector [dim] of an audio file. Raises UserError if it cannot be read or used."""
        audio = read_audio(path)
        mel = log_mel(prepare_waveform(audio, self.recipe), self.recipe)
        vector_D: NDArray[np.float32] = run_onnx(self._session, mel.segments()[:, None], BATCH_SIZE).mean(
            axis=0
        )
        return vector_D

    def _pieces(self, text: str) -> list[str]:
        """The tokens that stand for a part of a text."""
        try:
            text.encode()
        except UnicodeEncodeError:  # half a character, as a terminal with another encoding gives
            raise UserError("the query is no valid text: type it again, in UTF-8") from None
        encoding = self._tokenizer.encode(text)
        marks = zip(encoding.tokens, encoding.special_tokens_mask, strict=True)
        return [token for token, special in marks if not special]


def open_pair(music: Path, text: Path | None = None) -> Pair:
    """Open an export folder, or a music encoder with a text encoder; without `text`, the one beside it.

    Raises UserError if a file is missing, is none of the two, or if they do not belong together.
    """
    music_file = _file(music, MUSIC)
    text_file = music_file.with_name(TEXT) if text is None else _file(text, TEXT)
    of_music = _half(music_file, MUSIC, ["mel_spectrogram"])
    of_text = _half(text_file, TEXT, ["input_ids", "attention_mask"])
    if of_music["space_id"] != of_text["space_id"]:
        raise UserError(
            f"{music_file} and {text_file} were exported by different runs: their vectors have nothing to do "
            "with each other; give two files of one export"
        )
    try:
        recipe = FeatureRecipe.model_validate(of_music["recipe"])
    except (KeyError, ValidationError):
        raise UserError(f"{music_file} does not say which features it takes: export it again") from None
    return Pair(music_file, TextFile(text_file), recipe)


def _file(path: Path, name: str) -> Path:
    path = path.expanduser()
    return path / name if path.is_dir() else path


def _half(path: Path, name: str, inputs: list[str]) -> dict[str, object]:
    """The record of a file that must be one half of a pair. Raises UserError if it is not."""
    record = read_record(path)
    if "space_id" not in record:
        raise UserError(f"{path} belongs to no music-text pair: give a {name}")
    if (taken := [one.name for one in session(path).get_inputs()]) != inputs:
        raise UserError(f"{path} takes {', '.join(taken)}: give a {name}, which takes {', '.join(inputs)}")
    return record
