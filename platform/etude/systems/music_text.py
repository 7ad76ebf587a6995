"""The music-text students of seed 1: a music and a text encoder in one space.

The space is learned from three sides: music and its captions lie close together, and of each teacher's
vectors as much as a linear map can find in it. Upstream compares the first numbers of a vector with a
teacher's instead (facts/audiomuse.md, seed 000), which has no meaning.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from etude.audio.augment import AugmentConfig, augment
from etude.audio.mel_module import WaveformMel
from etude.audio.recipe import FeatureRecipe
from etude.config import Section
from etude.data.batches import all_batches
from etude.data.music_text import Captioned, MusicTextBatch, caption_ids
from etude.data.sampling import TrainingSegments
from etude.errors import UserError
from etude.evaluation.cross_modal import cross_modal
from etude.evaluation.metrics import evaluate, track_means, unit
from etude.evaluation.music_text import MusicTextFigures
from etude.objectives.contrastive import Contrast, ContrastiveConfig
from etude.objectives.terms import cosine_distance, scaled_mse
from etude.students import StudentConfig, build_student
from etude.students.text import build_text_student
from etude.students.text_encoder import TextStudentConfig
from etude.systems.base import ExportSpec, part_of
from etude.systems.student_clap import OverMel
from etude.training.chunked import encode_in_chunks

# Seed 1's weights; that of a text teacher, which the seed names and gives none, is as music's captions'.
USUAL_WEIGHTS = {"musicnn": 0.3, "clap": 0.4, "text": 0.3}


class MusicTextWeights(Section):
    """Weight of each loss term. A teacher's own, where none is given, is 0 if that teacher is not there."""

    contrastive: float = Field(0.3, ge=0)
    musicnn: float | None = Field(None, ge=0, description="of MusiCNN's vectors; 0.3 where it is a teacher")
    clap: float | None = Field(None, ge=0, description="of CLAP's; 0.4 where it is a teacher")
    text: float | None = Field(
        None, ge=0, description="of the text teacher's vectors; 0.3 where there is one"
    )


class MusicTextObjective(Section):
    """What the two encoders are to agree with."""

    weights: MusicTextWeights = MusicTextWeights()
    contrastive: ContrastiveConfig = ContrastiveConfig()

    def resolved(self, terms: Sequence[str]) -> dict[str, float]:
        """Every term's weight, where the teachers are those of `terms`.

        Raises ValueError if a teacher has a weight and is not there, or nothing has any.
        """
        given = self.weights.model_dump()
        for term in USUAL_WEIGHTS:
            if given[term] and term not in terms:
                where = "text_teacher" if term == "text" else "teacher, or prepare.also"
                raise ValueError(
                    f"objective.weights.{term} is {given[term]}, and there is no such teacher: name it in "
                    f"{where}, or leave the weight out"
                )
        weights = {"contrastive": self.weights.contrastive}
        weights |= {term: USUAL_WEIGHTS[term] if given[term] is None else given[term] for term in terms}
        if not any(weights.values()):
            raise ValueError("all weights are 0: give objective.weights at least one")
        return weights


class MusicText(nn.Module):
    """Both encoders, a linear map to each teacher, and the objective."""

    def __init__(
        self,
        music: StudentConfig,
        text: TextStudentConfig,
        objective: MusicTextObjective,
        augmentation: AugmentConfig,
        recipe: FeatureRecipe,
        *,
        dim: int,
        vocabulary: int,
        teachers: Mapping[str, int],
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`teachers` are the terms with their teachers' sizes: those that hear first, in the data's order.

        `state` is that of a trained system: this is then the same, and reads no file it began with.
        """
        super().__init__()
        of_music = state and part_of(state, "music")
        self.music = build_student(music, dim, normalize=True, state=of_music)
        self.text = build_text_student(text, vocabulary=vocabulary, dim=dim, normalize=True)
        self.projections = nn.ModuleDict({term: nn.Linear(dim, size) for term, size in teachers.items()})
        self.contrast = Contrast(objective.contrastive)
        for term, size in teachers.items():
            self.register_buffer(f"variance_{term}", torch.ones(size))
        self.weights = objective.resolved(list(teachers))
        self.recipe = recipe
        self.max_tokens = text.max_tokens
        self._chunk = objective.contrastive.chunk
        self._heard = [term for term in teachers if term != "text"]
        self._learned_scale = objective.contrastive.learned
        self._augmentation = augmentation
        if state is not None:
            self._load(state)

    def start_at(self, data: TrainingSegments) -> None:
        """Let every map answer its teacher's mean, and errors count in parts of the teacher's variance."""
        for place, term in enumerate(self._heard):
            mean, std = data.dataset.target_statistics(place)
            self._projection(term).bias.data.copy_(torch.from_numpy(mean))
            self.get_buffer(f"variance_{term}").copy_(torch.from_numpy(std).square())

    def train_head_only(self) -> None:
        self.music.freeze_backbone()
        self.text.freeze_backbone()

    def compile_student(self) -> None:
        self.music.compile()
        self.text.compile()

    def rate_of(self, parameter: str) -> float:
        return 1.0

    def reset_logit_scale(self) -> None:
        if not self._learned_scale:
            raise UserError(
                "there is no learned temperature to reset: set objective.contrastive.learned to true"
            )
        self.contrast.reset()

    def losses(self, batch: MusicTextBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Loss terms of a batch; with a generator, of its augmented form."""
        mel = batch.audio.mel
        if generator is not None:
            mel, _ = augment(mel, batch.audio.target, self._augmentation, generator, self.recipe)
        music_BD = encode_in_chunks(self.music, (mel,), self._chunk)
        text_BD = encode_in_chunks(self.text, (batch.input_ids, batch.attention_mask), self._chunk)
        terms = {"contrastive": self.contrast(music_BD, text_BD, batch.audio.track, batch.caption)}
        for term, target in zip(self._heard, (batch.audio.target, *batch.audio.also), strict=True):
            terms[term] = scaled_mse(
                self._projection(term)(music_BD).float(), target, self.get_buffer(f"variance_{term}")
            )
        if batch.text_target is not None:
            terms["text"] = cosine_distance(self._projection("text")(text_BD).float(), batch.text_target)
        return terms

    forward = losses

    @torch.inference_mode()
    def embed_music(
        self, captioned: Captioned, batch_size: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors [n, dim] of every segment, and the track [n] each belongs to."""
        was_training = self.training
        self.eval()
        vectors, tracks = [], []
        for batch in all_batches(captioned.dataset, batch_size):
            vectors.append(self.music(batch.mel.to(self._device)).float().cpu().numpy())
            tracks.append(batch.track.numpy())
        self.train(was_training)
        return np.concatenate(vectors), np.concatenate(tracks)

    @torch.inference_mode()
    def embed_texts(self, captioned: Captioned, batch_size: int) -> NDArray[np.float32]:
        """Vectors [c, dim] of all captions in order."""
        was_training = self.training
        self.eval()
        vectors = [
            self.text(ids.to(self._device), mask.to(self._device)).float().cpu().numpy()
            for ids, mask in captioned.texts(batch_size)
        ]
        self.train(was_training)
        return np.concatenate(vectors)

    def evaluate(self, dataset: Captioned, batch_size: int) -> MusicTextFigures:
        music_ND, track_N = self.embed_music(dataset, batch_size)
        text_CD = self.embed_texts(dataset, batch_size)
        retrieval = compare(music_ND, track_N, text_CD, dataset).retrieval
        teachers = {}
        for place, term in enumerate(self._heard):
            said = dataset.dataset.targets(place)
            guessed_ND = self._through(term, music_ND)
            tracks = track_means(said, track_N, len(dataset.dataset))
            teachers[term] = evaluate(guessed_ND, said, track_N, tracks)
        if dataset.text_teacher is not None:
            texts, _ = dataset.flat()
            said = dataset.text_teacher.embed(texts)
            teachers["text"] = evaluate(self._through("text", text_CD), said, np.arange(len(said)), said)
        return MusicTextFigures(retrieval, teachers)

    def exports(self) -> Sequence[ExportSpec]:
        """The music encoder over mels and over 48 kHz waveforms, and the text encoder."""
        recipe, ids = self.recipe, torch.zeros(2, self.max_tokens, dtype=torch.int64)
        mel = torch.zeros(2, 1, recipe.n_mels, recipe.n_frames)
        waveform = torch.zeros(2, recipe.segment_samples)
        heard = nn.Sequential(WaveformMel(recipe), self.music)
        texts = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return (
            ExportSpec("music_encoder", OverMel(self.music), {"mel_spectrogram": mel}),
            ExportSpec("music_encoder_waveform", heard, {"waveform": waveform}),
            ExportSpec("text_encoder", self.text, texts),
        )

    def _load(self, state: Mapping[str, Tensor]) -> None:
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip().rstrip(".:")
            raise UserError(
                f"the checkpoint holds another pair than its configuration says ({reason}): configure the "
                "text encoder, the teachers and the objective that it holds, or train anew"
            ) from error

    @property
    def _device(self) -> torch.device:
        return next(self.music.parameters()).device

    def _projection(self, term: str) -> nn.Linear:
        projection = self.projections[term]
        assert isinstance(projection, nn.Linear)
        return projection

    @torch.inference_mode()
    def _through(self, term: str, vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the map to a teacher makes of vectors."""
        out: NDArray[np.float32] = (
            self._projection(term)(torch.from_numpy(vectors_ND).to(self._device)).cpu().numpy()
        )
        return out


def compare(
    music_ND: NDArray[np.float32],
    track_N: NDArray[np.int64],
    text_CD: NDArray[np.float32],
    dataset: Captioned,
) -> MusicTextFigures:
    """Retrieval alone, of any vectors of a set's segments and captions in order.

    A track's vector is the mean of its segments', as searching has it.
    """
    texts, track_C = dataset.flat()
    music_TD = unit(track_means(music_ND, track_N, len(dataset.dataset)))
    found = cross_modal(music_TD, text_CD, track_C, caption_ids(texts).numpy())
    return MusicTextFigures(found, {})
