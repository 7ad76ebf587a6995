"""The text student of seed 4: a small encoder that learns a teacher's vectors of queries."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.text import Queries, TextBatch
from etude.evaluation.metrics import Metrics, evaluate
from etude.objectives.distillation import ObjectiveConfig
from etude.students.text import TextStudentConfig, build_text_student
from etude.students.text_encoder import TextEncoder
from etude.systems.base import ExportSpec
from etude.systems.distilled import Distilled


class TextSystem(Distilled):
    """A text student that is compared with its teacher query by query."""

    student: TextEncoder

    def __init__(
        self,
        student: TextStudentConfig,
        objective: ObjectiveConfig,
        *,
        vocabulary: int,
        dim: int,
        normalized: bool,
        anchors_AD: Tensor | None = None,
    ) -> None:
        network = build_text_student(student, vocabulary=vocabulary, dim=dim, normalize=normalized)
        super().__init__(network, objective, dim, anchors_AD)
        self.max_tokens = student.max_tokens

    def losses(self, batch: TextBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Loss terms of a batch. Queries are drawn anew every epoch, so `generator` changes nothing here."""
        return self.terms(self.student(batch.input_ids, batch.attention_mask), batch.target)

    forward = losses

    @torch.inference_mode()
    def embed(self, queries: Queries, batch_size: int) -> NDArray[np.float32]:
        """Vectors [n, dim] of all queries."""
        was_training = self.training
        self.eval()
        vectors = []
        for batch in queries.batches(batch_size):
            here = batch.to(self.mean.device)
            vectors.append(self.student(here.input_ids, here.attention_mask).float().cpu().numpy())
        self.train(was_training)
        return np.concatenate(vectors)

    def evaluate(self, dataset: Queries, batch_size: int) -> Metrics:
        return figures(self.embed(dataset, batch_size), dataset)

    def exports(self) -> Sequence[ExportSpec]:
        """The student over tokens padded to `max_tokens`, as AudioMuse-AI runs CLAP's text model."""
        ids = torch.zeros(2, self.max_tokens, dtype=torch.int64)
        return (
            ExportSpec(
                "text_student", self.student, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            ),
        )


def figures(student_ND: NDArray[np.float32], queries: Queries) -> Metrics:
    """Figures of any vectors for a set of queries in order; each query counts as a track of one segment."""
    return evaluate(student_ND, queries.vectors, np.arange(len(queries)), queries.vectors)
