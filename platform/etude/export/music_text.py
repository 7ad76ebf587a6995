"""What publishing a music-text pair takes: real audio and captions for the gate, its tokenizer, its card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.data.batches import all_batches
from etude.data.music_text import Captioned
from etude.evaluation.cross_modal_plot import cross_modal_plot
from etude.evaluation.music_text import MusicTextFigures
from etude.experiments.music_text import MusicTextStudy
from etude.export.audio import gate_audio, licenses
from etude.export.card import Card
from etude.export.onnx import run_onnx, session
from etude.export.parity import Parity, check_parity, compare, require
from etude.students.tokens import Tokens
from etude.systems import music_text
from etude.systems.music_text import MusicText

GATE_CAPTIONS = 64
_CAPTIONS = {
    "template": "made by templates", "openai": "made by a language model", "own": "that came with the music",
}  # fmt: skip


@dataclass(frozen=True)
class MusicTextRelease:
    """A music-text study as `publish` wants it."""

    study: MusicTextStudy
    comparable = ("recipe_id", "captions")

    def record(self) -> dict[str, Any]:
        settings, study = self.study.settings, self.study
        read = (study.text_teacher,) if study.text_teacher else ()
        return {
            "recipe": settings.recipe.model_dump(),
            "recipe_id": settings.recipe.id,
            "teacher": " and ".join(teacher.id for teacher in (*study.teachers, *read)),
            "teacher_license": " and ".join(teacher.license for teacher in (*study.teachers, *read)),
            "tokenizer": study.test.tokens.id,
            "max_tokens": settings.text.max_tokens,
            "captions": settings.captions.id,
            "student": {
                "music": settings.music.model_dump(mode="json"),
                "text": settings.text.model_dump(mode="json"),
            },
            "normalized": True,
            "data_licenses": licenses(study.splits.train.dataset),
        }

    def check(self, system: MusicText, files: Sequence[Path]) -> dict[str, Parity]:
        study = self.study
        audio = gate_audio(study.settings, study.test.dataset, study.validation.dataset)
        results = check_parity(system.music, files[0], files[1], audio)
        some = Captioned(study.test.dataset, study.test.captions[:GATE_CAPTIONS], study.test.tokens, None)
        of_file = _text_vectors(files[2], some.tokens.content, some)
        of_text = {"input_ids": compare(system.embed_texts(some, 16), of_file)}
        require(of_text)
        return results | of_text

    def score(self, files: Sequence[Path]) -> MusicTextFigures:
        """With the pair's own tokenizer. Raises UserError if it cannot read one of the captions."""
        opened, validation = session(files[0]), self.study.validation
        vectors, tracks = [], []
        for batch in all_batches(validation.dataset, 16):
            vectors.append(run_onnx(opened, batch.mel.numpy()[:, None], 16))
            tracks.append(batch.track.numpy())
        named = {file.name: file for file in files}
        tokenizer = named["tokenizer.json"].read_bytes()
        texts = _text_vectors(named["text_encoder.onnx"], tokenizer, validation)
        return music_text.compare(np.concatenate(vectors), np.concatenate(tracks), texts, validation)

    def card(self) -> Card:
        study, recipe, length = self.study, self.study.settings.recipe, self.study.settings.text.max_tokens
        captions = _CAPTIONS[study.settings.captions.name]
        return Card(
            tags=("music", "text-to-music-retrieval", "distillation"),
            what=f"{recipe.segment_samples / recipe.sample_rate:g} s of music and for captions",
            files=(
                (
                    "music_encoder.onnx",
                    f"`mel_spectrogram` (batch, 1, {recipe.n_mels}, {recipe.n_frames}) in dB",
                ),
                (
                    "music_encoder_waveform.onnx",
                    f"`waveform` (batch, {recipe.segment_samples}), mono, {recipe.sample_rate} Hz, -1..1",
                ),
                ("text_encoder.onnx", f"`input_ids`, `attention_mask` (batch, {length}) int64"),
            ),
            figures_on=f"{len(study.test.dataset)} held-out tracks with captions {captions}",
            licenses=(
                f"the teachers' weights: {self.record()['teacher_license']}",
                *(f"{count} tracks: {one}" for one, count in licenses(study.splits.train.dataset).items()),
            ),
        )

    def plots(self, system: MusicText, folder: Path) -> list[Path]:
        """Both ways' recall, and the tokenizer, without which the text encoder is of no use."""
        test = self.study.test
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_bytes(test.tokens.content)
        found = system.evaluate(test, self.study.settings.training.batch_size)
        return [cross_modal_plot(found.retrieval, folder / "retrieval.png"), tokenizer]


def _text_vectors(path: Path, tokenizer: bytes, captioned: Captioned) -> NDArray[np.float32]:
    opened, (texts, _) = session(path), captioned.flat()
    length = opened.get_inputs()[0].shape[1]
    input_ids, attention_mask = Tokens(tokenizer, length).ids(texts, length)
    named = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
    return run_onnx(opened, named, 16)
