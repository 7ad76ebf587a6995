"""The audio student of seeds 2 and 4: one encoder that learns a teacher's vector of every segment.

The teacher is whichever the targets come from: CLAP, whose vectors have length 1, or MusiCNN, whose raw
vectors are matched in length too, so that the student drops in where the teacher's were used.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from etude.audio.augment import AugmentConfig, augment, masks_only
from etude.audio.mel_module import WaveformMel
from etude.audio.recipe import FeatureRecipe
from etude.data.batches import Batch, Dataset, all_batches
from etude.evaluation.metrics import Metrics, evaluate
from etude.objectives.distillation import ObjectiveConfig
from etude.objectives.strategies import Strategy, pairs
from etude.students import Student, StudentConfig, build_student
from etude.systems.base import ExportSpec, part_of
from etude.systems.distilled import Distilled


class StudentClap(Distilled):
    """An audio student that is compared with its teacher segment by segment, track by track, or both."""

    student: Student

    def __init__(
        self,
        student: StudentConfig,
        objective: ObjectiveConfig,
        augmentation: AugmentConfig,
        recipe: FeatureRecipe,
        *,
        dim: int,
        normalized: bool,
        strategy: Strategy = "segments",
        anchors_AD: Tensor | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`state` is that of a trained system: this is then the same, and reads no file it began with."""
        of_student = state and part_of(state, "student")
        super().__init__(
            build_student(student, dim, normalized, state=of_student), objective, dim, anchors_AD
        )
        if state is not None:
            self.load_state_dict(state)
        self.recipe = recipe
        self.normalized = normalized
        self._strategy = strategy
        # Heard anew, the waveform was changed already, for the teacher too.
        recomputed = augmentation.targets == "recomputed"
        self._augmentation = masks_only(augmentation) if recomputed else augmentation

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Loss terms of a batch; with a generator, of its augmented form."""
        mel, target = batch.mel, batch.target
        if generator is not None:
            mel, target = augment(mel, target, self._augmentation, generator, self.recipe)
        student, teacher, weight = pairs(
            self.student(mel), target, batch.track, self._strategy, normalized=self.normalized
        )
        return self.terms(student, teacher, weight)

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
                "student",
                OverMel(self.student),
                {"mel_spectrogram": torch.zeros(2, 1, recipe.n_mels, recipe.n_frames)},
            ),
            ExportSpec(
                "student_waveform",
                nn.Sequential(WaveformMel(recipe), self.student),
                {"waveform": torch.zeros(2, recipe.segment_samples)},
            ),
        )


def compare(student_ND: NDArray[np.float32], track_N: NDArray[np.int64], dataset: Dataset) -> Metrics:
    """Figures of any vectors for a dataset's segments in order."""
    teacher = np.concatenate([row.segment_targets for row in dataset])
    tracks = np.stack([row.track_target for row in dataset])
    return evaluate(student_ND, teacher, track_N, tracks)


class OverMel(nn.Module):
    """The seeds' input has a channel axis: [b, 1, n_mels, n_frames]."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, mel_spectrogram: Tensor) -> Tensor:
        return self.student(mel_spectrogram.squeeze(1))  # type: ignore[no-any-return]
