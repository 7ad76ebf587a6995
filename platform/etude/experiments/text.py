"""The whole configuration of a text experiment (seed 4), and what is built from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from etude.data.queries import QueryConfig, QuerySampler
from etude.data.text import Queries, QueryStream, TextSplits, open_queries
from etude.experiments.base import Experiment
from etude.objectives.distillation import ObjectiveConfig
from etude.students.cost import Cost, count
from etude.students.text import TextStudentConfig, build_text_student
from etude.students.tokens import Tokens, load_tokenizer
from etude.systems.text_student import TextSystem
from etude.teachers.text import MiniLMConfig, TextTeacher, TextTeacherConfig, build_text_teacher


class TextExperiment(Experiment):
    """Every key of a text experiment. Files: --config FILE.yaml. Environment: ETUDE_STUDENT__HIDDEN=128."""

    system: ClassVar[str] = "text-student"
    shared: ClassVar[frozenset[str]] = Experiment.shared | {"queries", "teacher", "tokenizer"}
    shaping: ClassVar[frozenset[str]] = Experiment.shaping | {
        "queries", "teacher", "tokenizer", "student", "objective",
    }  # fmt: skip

    queries: QueryConfig = QueryConfig()
    teacher: TextTeacherConfig = Field(MiniLMConfig(), discriminator="name")
    tokenizer: Path | None = Field(
        None, description="a Hugging Face tokenizer.json; without one, the one of the teacher"
    )
    student: TextStudentConfig = TextStudentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()

    @model_validator(mode="before")
    @classmethod
    def _usual_unless_named(cls, data: Any) -> Any:
        given = data.get("teacher") if isinstance(data, dict) else None
        if isinstance(given, dict) and "name" not in given:
            data = data | {"teacher": given | {"name": "minilm"}}
        return data

    @field_validator("tokenizer")
    @classmethod
    def _absolute_tokenizer(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()

    def tokens(self) -> Tokens:
        """The student's tokenizer. Raises UserError if its file cannot be read."""
        own = None if isinstance(self.teacher, MiniLMConfig) else self.teacher.tokenizer
        return load_tokenizer(self.tokenizer or own, self.student.max_tokens)

    def cost(self, state: Mapping[str, Tensor] | None = None) -> Cost:
        dim, vocabulary = build_text_teacher(self.teacher).dim, self.tokens().vocabulary
        student = build_text_student(self.student, vocabulary=vocabulary, dim=dim, normalize=True)
        ids = torch.ones(1, self.student.max_tokens, dtype=torch.int64)
        return count(student, ids, ids)

    def open(self) -> "TextStudy":
        """Load the teacher and ask it for the held-out queries. Raises UserError if one is too long."""
        teacher = build_text_teacher(self.teacher)
        sets = open_queries(QuerySampler(self.queries), teacher, self.tokens(), self.cache / "text")
        return TextStudy(self, teacher, sets)


@dataclass(frozen=True)
class TextStudy:
    """Queries with what their teacher says of them: a `Study`."""

    settings: TextExperiment
    teacher: TextTeacher
    splits: TextSplits

    @property
    def training(self) -> QueryStream:
        return self.splits.train

    @property
    def validation(self) -> Queries:
        return self.splits.validation

    @property
    def test(self) -> Queries:
        return self.splits.test

    @property
    def data_hash(self) -> str:
        return self.splits.data_hash

    def system(self, seed: int, state: Mapping[str, Tensor] | None = None) -> TextSystem:
        torch.manual_seed(seed)
        semantic = self.settings.objective.weights.semantic
        anchors = torch.from_numpy(self.training.anchors()) if semantic else None
        system = TextSystem(
            self.settings.student,
            self.settings.objective,
            vocabulary=self.training.tokens.vocabulary,
            dim=self.teacher.dim,
            normalized=self.teacher.normalized,
            anchors_AD=anchors,
        )
        if state is not None:
            system.load_state_dict(state)
        return system

    def identity(self) -> dict[str, str]:
        return {
            "system": self.settings.system,
            "teacher": self.teacher.id,
            "tokenizer": self.training.tokens.id,
            "data": self.data_hash,
            "student": self.settings.student.model_dump_json(),
        }
