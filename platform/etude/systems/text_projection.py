"""Text projection (seed 3): captions are put where the music that they describe lies, in a frozen space.

The music's side has no parameters. The text's side is a pretrained encoder, frozen or with adapters that
learn, and a projection head with the space's own width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from etude.config import Section
from etude.data.music_text import caption_ids
from etude.data.projection import Described, Pair, ProjectionBatch, TrainingPairs
from etude.errors import UserError
from etude.evaluation.cross_modal import cross_modal
from etude.evaluation.projection import ProjectionFigures
from etude.objectives.contrastive import Contrast, ContrastiveConfig
from etude.students.projection import ProjectionHead, ProjectionHeadConfig
from etude.students.sentence import SentenceEncoder
from etude.systems.base import ExportSpec
from etude.training.chunked import encode_in_chunks


class ProjectionObjective(Section):
    """What a text's place is to agree with."""

    contrastive: ContrastiveConfig = ContrastiveConfig()
    encoder_rate: float = Field(
        0.4, gt=0, le=1, description="of the learning rate, for adapters: seed 3's 2e-5 beside 5e-5"
    )


class TextSide(nn.Module):
    """From what a `Reader` gives of texts to places in the space, at length 1."""

    def __init__(self, encoder: SentenceEncoder, head: ProjectionHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, text: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Vectors [b, text_dim], or ids [b, t] with their mask [b, t], to [b, dim]."""
        vector_BD = text if attention_mask is None else self.encoder(text, attention_mask)
        placed: Tensor = self.head(vector_BD)
        return placed


class TextProjection(nn.Module):
    """The text's side and its objective."""

    def __init__(
        self,
        encoder: SentenceEncoder,
        head: ProjectionHeadConfig,
        objective: ProjectionObjective,
        *,
        dim: int,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`state` is that of a trained system: its head and its adapters, without the encoder's weights."""
        super().__init__()
        self.text = TextSide(encoder, ProjectionHead(encoder.dim, head, dim))
        self.contrast = Contrast(objective.contrastive)
        self.weights = {"contrastive": 1.0}
        self._objective = objective
        if state is not None:
            self._load(state)

    def start_at(self, data: TrainingPairs) -> None:
        """Let texts begin around the middle of the music, as widely spread: its last norm sets both."""
        self.text.head.start_at(*(torch.from_numpy(array) for array in data.target_statistics()))

    def train_head_only(self) -> None:
        self.text.encoder.requires_grad_(False)

    def compile_student(self) -> None:
        self.text.compile()

    def reset_logit_scale(self) -> None:
        if not self._objective.contrastive.learned:
            raise UserError(
                "there is no learned temperature to reset: set objective.contrastive.learned to true"
            )
        self.contrast.reset()

    def rate_of(self, parameter: str) -> float:
        return self._objective.encoder_rate if parameter.startswith("text.encoder.") else 1.0

    def losses(self, batch: ProjectionBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The one term; nothing of a batch is drawn anew, so the generator has no use."""
        text_BD = encode_in_chunks(self.text, batch.text, self._objective.contrastive.chunk)
        return {"contrastive": self.contrast(batch.audio, text_BD, batch.track, batch.caption)}

    forward = losses

    @torch.inference_mode()
    def embed(self, dataset: Described, batch_size: int) -> tuple[NDArray[np.float32], list[Pair]]:
        """Where all captions are put [c, dim], and the pair that each belongs to."""
        assert dataset.reader, "texts are read to be put among music"
        pairs, vectors = dataset.pairs(), []
        with _still(self):
            for start in range(0, len(pairs), batch_size):
                some = pairs[start : start + batch_size]
                read = dataset.reader.read([dataset.captions[track][number] for track, number in some])
                placed_BD = self.text(*(part.to(self._device) for part in read))
                vectors.append(placed_BD.float().cpu().numpy())
        return np.concatenate(vectors), pairs

    @torch.inference_mode()
    def evaluate(self, dataset: Described, batch_size: int) -> ProjectionFigures:
        text_CD, pairs = self.embed(dataset, batch_size)
        audio_TD = dataset.audio(range(len(dataset)))
        loss = self._loss(audio_TD, text_CD, pairs, dataset, batch_size)
        return compare(text_CD, pairs, dataset, loss, audio_TD)

    def exports(self) -> Sequence[ExportSpec]:
        """The head over an encoder's vectors; and the whole text's side where its encoder can be exported."""
        encoder, head = self.text.encoder, self.text.head
        specs = [ExportSpec("projection_head", head, {"text_vector": torch.zeros(2, encoder.dim)})]
        if encoder.exportable:
            ids = torch.zeros(2, encoder.reader.max_tokens, dtype=torch.int64)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            specs.append(ExportSpec("text_encoder", self.text, inputs))
        return specs

    @torch.inference_mode()
    def _loss(
        self,
        audio_TD: NDArray[np.float32],
        text_CD: NDArray[np.float32],
        pairs: Sequence[Pair],
        dataset: Described,
        batch_size: int,
    ) -> float:
        """The mean loss of batches as in training."""
        total = 0.0
        with _still(self):
            for start in range(0, len(pairs), batch_size):
                some = pairs[start : start + batch_size]
                tracks = [track for track, _ in some]
                audio = torch.from_numpy(audio_TD[tracks]).to(self._device)
                text = torch.from_numpy(text_CD[start : start + batch_size]).to(self._device)
                captions = caption_ids([dataset.captions[track][number] for track, number in some])
                ids = torch.tensor(tracks).to(self._device), captions.to(self._device)
                total += float(self.contrast(audio, text, *ids)) * len(some)
        return total / len(pairs)

    def _load(self, state: Mapping[str, Tensor]) -> None:
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip().rstrip(".:")
            raise UserError(
                f"the checkpoint holds another projection than its configuration says ({reason}): configure "
                "the encoder, the head and the space that it was trained with, or train anew"
            ) from error

    @property
    def _device(self) -> torch.device:
        return self.contrast.logit_scale.device


def compare(
    text_CD: NDArray[np.float32],
    pairs: Sequence[Pair],
    dataset: Described,
    loss: float,
    audio_TD: NDArray[np.float32] | None = None,
) -> ProjectionFigures:
    """The figures of captions' places [c, dim] among a set's tracks, which lie at `audio_TD` [t, dim]."""
    if audio_TD is None:
        audio_TD = dataset.audio(range(len(dataset)))
    texts = [dataset.captions[track][number] for track, number in pairs]
    track_C = np.array([track for track, _ in pairs])
    return ProjectionFigures(cross_modal(audio_TD, text_CD, track_C, caption_ids(texts).numpy()), loss)


@contextmanager
def _still(system: nn.Module) -> Iterator[None]:
    """The system as it answers users, for a while."""
    was_training = system.training
    system.eval()
    try:
        yield
    finally:
        system.train(was_training)
