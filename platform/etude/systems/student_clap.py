"""The audio student of seeds 2 and 4: one encoder that learns a teacher's vector of every segment.

The teacher is whichever the targets come from: CLAP, whose vectors have length 1, or MusiCNN, whose raw
vectors are matched in length too, so that the student drops in where the teacher's were used.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.audio.augment import AugmentConfig, augment
from etude.audio.mel_module import WaveformMel
from etude.audio.recipe import FeatureRecipe
from etude.data.batches import Batch, Dataset, all_batches
from etude.evaluation.metrics import Metrics, evaluate
from etude.objectives.distillation import ObjectiveConfig, distillation_terms
from etude.students import StudentConfig, build_student
from etude.systems.base import ExportSpec


class StudentClap(nn.Module):
    """Student, objective and metrics as one module, so that data-parallel training wraps all of it."""

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        student: StudentConfig,
        objective: ObjectiveConfig,
        augmentation: AugmentConfig,
        recipe: FeatureRecipe,
        *,
        dim: int,
        normalized: bool,
    ) -> None:
        super().__init__()
        self.student = build_student(student, dim, normalized)
        self.recipe = recipe
        self._objective = objective
        self._augmentation = augmentation
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    @property
    def weights(self) -> dict[str, float]:
        return self._objective.weights.model_dump()

    def start_at(self, dataset: Dataset) -> None:
        """Begin at the teacher's mean and spread over the training set instead of at nothing."""
        mean, std = (torch.from_numpy(array) for array in dataset.target_statistics())
        self.mean.copy_(mean)
        self.variance.copy_(std.square())
        self.student.head.start_at(mean, std)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Loss terms of a batch; with a generator, of its augmented form."""
        mel, target = batch.mel, batch.target
        if generator is not None:
            mel, target = augment(mel, target, self._augmentation, generator, self.recipe.floor_db)
        return distillation_terms(
            self.student(mel), target, self.mean, self.variance, self._objective.weights
        )

    forward = losses

    @torch.inference_mode()
    def embed(self, dataset: Dataset, batch_size: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors [n, dim] of every segment, and the track [n] each belongs to."""
        was_training = self.training
        self.eval()
        vectors, tracks = [], []
        for batch in all_batches(dataset, batch_size):
            vectors.append(self.student(batch.to(self.mean.device).mel).float().cpu().numpy())
            tracks.append(batch.track.numpy())
        self.train(was_training)
        return np.concatenate(vectors), np.concatenate(tracks)

    def evaluate(self, dataset: Dataset, batch_size: int) -> Metrics:
        student, track = self.embed(dataset, batch_size)
        return compare(student, track, dataset)

    def exports(self) -> Sequence[ExportSpec]:
        """The student over mel spectrograms, and over 48 kHz waveforms with the front end inside."""
        recipe = self.recipe
        return (
            ExportSpec(
                "student", _OverMel(self.student), "mel_spectrogram",
                (1, recipe.n_mels, recipe.n_frames), "embedding",
            ),
            ExportSpec(
                "student_waveform", nn.Sequential(WaveformMel(recipe), self.student), "waveform",
                (recipe.segment_samples,), "embedding",
            ),
        )  # fmt: skip


def compare(student_ND: NDArray[np.float32], track_N: NDArray[np.int64], dataset: Dataset) -> Metrics:
    """Figures of any vectors for a dataset's segments in order."""
    teacher = np.concatenate([row.segment_targets for row in dataset])
    tracks = np.stack([row.track_target for row in dataset])
    return evaluate(student_ND, teacher, track_N, tracks)


class _OverMel(nn.Module):
    """The seeds' input has a channel axis: [b, 1, n_mels, n_frames]."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, mel_spectrogram: Tensor) -> Tensor:
        return self.student(mel_spectrogram.squeeze(1))  # type: ignore[no-any-return]
