"""What publishing a text student takes: real queries for the gate, its tokenizer beside it, its card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.data.text import Queries
from etude.evaluation.metrics import Metrics
from etude.evaluation.report import Compared, held_out_plots
from etude.experiments.text import TextStudy
from etude.export.card import Card
from etude.export.onnx import run_onnx, session
from etude.export.parity import Parity, compare, require
from etude.systems.text_student import TextSystem, figures

GATE_QUERIES = 64


@dataclass(frozen=True)
class TextRelease:
    """A text study as `publish` wants it."""

    study: TextStudy
    comparable = ("tokenizer", "teacher")

    def record(self) -> dict[str, Any]:
        settings, teacher = self.study.settings, self.study.teacher
        return {
            "tokenizer": self.study.training.tokens.id,
            "max_tokens": settings.student.max_tokens,
            "teacher": teacher.id,
            "teacher_license": teacher.license,
            "normalized": teacher.normalized,
            "student": settings.student.model_dump(mode="json"),
        }

    def check(self, system: TextSystem, files: Sequence[Path]) -> dict[str, Parity]:
        """In PyTorch the queries are padded to the longest, in the file to its length."""
        test = self.study.test
        some = Queries(test.texts[:GATE_QUERIES], test.vectors[:GATE_QUERIES], test.tokens)
        results = {"input_ids": compare(system.embed(some, 16), _vectors(files[0], some))}
        require(results)
        return results

    def score(self, files: Sequence[Path]) -> Metrics:
        return figures(_vectors(files[0], self.study.validation), self.study.validation)

    def card(self) -> Card:
        length = self.study.settings.student.max_tokens
        return Card(
            tags=("music", "text-embedding", "distillation"),
            what="queries",
            files=(("text_student.onnx", f"`input_ids`, `attention_mask` (batch, {length}) int64"),),
            figures_on=f"{len(self.study.test)} held-out queries of terms in combinations never learned",
            licenses=(f"the teacher's weights: {self.study.teacher.license}",),
        )

    def plots(self, system: TextSystem, folder: Path) -> list[Path]:
        """A plot and a listing, and the tokenizer, without which the file is of no use."""
        test = self.study.test
        tokenizer = folder / "tokenizer.json"
        tokenizer.write_bytes(test.tokens.content)
        compared = Compared(system.embed(test, 64), test.vectors, np.arange(len(test)), test.texts, "queries")
        return [*held_out_plots(compared, folder), tokenizer]


def _vectors(path: Path, queries: Queries) -> NDArray[np.float32]:
    opened = session(path)
    length = opened.get_inputs()[0].shape[1]  # a champion's may be another than this student's
    input_ids, attention_mask = queries.tokens.ids(queries.texts, length)
    named = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
    return run_onnx(opened, named, 16)
