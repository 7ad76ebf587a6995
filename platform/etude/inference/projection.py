"""A text projection beside a prepared library: queries are put among the vectors of a frozen audio model."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from etude.audio.segment import segments_of
from etude.config import load
from etude.data.batches import open_targets
from etude.errors import BadAudio, UserError
from etude.evaluation.text import TextFile, read_record
from etude.experiments.text_projection import TextProjectionExperiment
from etude.export.onnx import run_onnx, session
from etude.export.text_projection import ADAPTERS, HEAD, TEXT
from etude.inference.audio_file import read_audio
from etude.licences import require_licences
from etude.sources.base import Source, Track
from etude.students.sentence import SentenceEncoder, build_sentence_encoder
from etude.teachers import Teacher, build_teacher
from etude.teachers.enrichment import Enrichment


class Projection:
    """The exported files of one run, and what it takes to hear as its space does."""

    def __init__(self, folder: Path, home: Path) -> None:
        """`home` holds the library. Raises UserError if a file is missing or of another run."""
        self.folder = folder
        self._record = read_record(folder / HEAD)
        if "enrichment" not in self._record:
            raise UserError(f"{folder / HEAD} is no text projection's: export it again")
        self.hash = str(self._record["space_id"])
        self._settings = load(
            TextProjectionExperiment, ["--config", str(folder / "config.yaml"), "--home", str(home)]
        )
        self._enrichment = Enrichment.model_validate(self._record["enrichment"])
        self._whole = TextFile(folder / TEXT) if (folder / TEXT).is_file() else None
        if self._whole and self._whole.record["space_id"] != self.hash:
            raise UserError(f"{folder / TEXT} is of another run than the {HEAD} beside it: export again")

    def text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Places [n, dim]. Raises UserError if a text is empty or too long."""
        for text in texts:
            if not text.strip():
                raise UserError('the query is empty: say how the music sounds, as in "slow piano"')
        if self._whole:
            return self._whole.embed(texts)
        input_ids, mask = self._encoder.tokens(texts, queries=True)
        return run_onnx(session(self.folder / HEAD), self._encoder(input_ids, mask).detach().numpy(), 16)

    def knows(self, text: str) -> bool:
        """A pretrained encoder reads anything."""
        return True

    def library(self, source: Source) -> tuple[list[Track], NDArray[np.float32]]:
        """The tracks that the space's model has heard, and where they lie [n, dim].

        Raises UserError if none was prepared.
        """
        settings = self._settings
        found = open_targets(settings.store, source.id, settings.recipe, str(self._record["teacher"]))
        vectors = [self._enrichment.apply(targets.segments) for _, targets in found]
        return [track for track, _ in found], np.stack(vectors)

    def file(self, path: Path) -> NDArray[np.float32]:
        """Where an audio file lies [dim]. Raises UserError if it cannot be read or used."""
        audio, recipe = read_audio(path), self._settings.recipe
        track = Track("file", str(path), path.name)
        try:
            resampled = audio.resampled(recipe.sample_rate)
            targets = self._teacher.embed(audio, segments_of(len(resampled), recipe), track)
        except BadAudio as error:
            raise UserError(f"{path} cannot be used ({error}): give another file") from None
        return self._enrichment.apply(targets.segments)

    @cached_property
    def _teacher(self) -> Teacher:
        """The model whose space it is, with the very weights."""
        settings = self._settings
        require_licences(settings.home, [settings.teacher], accept=False)
        teacher = build_teacher(settings.teacher)
        if teacher.id != self._record["teacher"]:
            raise UserError(
                f"{self.folder} is in the space of {self._record['teacher']}, here is {teacher.id}: give "
                "that one's weights"
            )
        return teacher

    @cached_property
    def _encoder(self) -> SentenceEncoder:
        """The encoder that is no file of this folder, with the adapters that are."""
        encoder = build_sentence_encoder(self._settings.encoder).eval()
        if encoder.id != self._record["encoder"]:
            raise UserError(
                f"{self.folder} has the encoder {self._record['encoder']}, here is {encoder.id}: "
                "give that one's weights"
            )
        if self._settings.encoder.lora:
            encoder.load_state_dict(load_file(self.folder / ADAPTERS))
        return encoder
