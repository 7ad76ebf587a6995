"""Gated fusion: a trained student that stays as it is, and a second network that adds to what it says.

As AudioMuse-AI-DCLAP trains its released model: facts/audiomuse.md, c.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from etude.errors import UserError
from etude.students.blocks import Backbone
from etude.students.config import StudentConfig
from etude.students.student import Student
from etude.torch_file import read_torch_file

CLOSED = -3.0  # where the gate starts: sigmoid(-3) is 0.047
RECORD = "specialist_config"  # the buffer that names the specialist's architecture


@dataclass(frozen=True)
class Specialist:
    """A trained student as a checkpoint holds it."""

    config: StudentConfig
    state: dict[str, Tensor]  # of the student, names as in its state_dict
    dim: int
    experiment: dict[str, Any]  # the whole configuration that it was trained with


class FusionHead(nn.Module):
    """A projector of the second network's features, and a gate per dimension that lets it through."""

    def __init__(self, n_features: int, dim: int, *, dropout: float, normalize: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(n_features, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.linear2.weight)
        self.norm = nn.LayerNorm(dim)
        self.alpha = nn.Parameter(torch.full((dim,), CLOSED))
        self.normalize = normalize

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Nothing: it starts as the specialist, which knows the teacher."""

    def forward(self, features_BF: Tensor, specialist_BD: Tensor) -> Tensor:
        """Features [b, n_features] and the specialist's embeddings [b, dim] to embeddings [b, dim].

        What is added has length 1 for a teacher whose vectors have, and is free in length for another. At
        the start it is 0: the specialist's embeddings come out.
        """
        hidden_BD = self.dropout(functional.gelu(self.linear1(features_BF)))
        added_BD: Tensor = self.norm(self.linear2(hidden_BD))
        if not self.normalize:
            return specialist_BD + self.alpha.sigmoid() * added_BD
        # Layer norm gives lengths of about sqrt(dim), so eps only matters at the start: with the usual 1e-12
        # the gradient at 0 would be 1e12 times too large.
        added_BD = functional.normalize(added_BD, dim=1, eps=1.0)
        return functional.normalize(specialist_BD + self.alpha.sigmoid() * added_BD, dim=1)


class FusionStudent(Student):
    """A student whose embeddings are a frozen specialist's, and what a second backbone adds to them.

    Its state holds the specialist's tensors and configuration, so that it can be built again without the
    specialist's file.
    """

    head: FusionHead
    specialist_config: Tensor

    def __init__(
        self, backbone: Backbone, specialist: Student, config: StudentConfig, record: StudentConfig, dim: int,
        normalize: bool,
    ) -> None:  # fmt: skip
        head = FusionHead(backbone.n_features, dim, dropout=config.dropout, normalize=normalize)
        super().__init__(backbone, head, config.input_map, config.frame_stride)
        self.specialist = specialist.requires_grad_(False)
        text = record.model_dump_json(exclude={"weights", "specialist"}).encode()
        self.register_buffer(RECORD, torch.tensor(list(text), dtype=torch.uint8))
        self.train(self.training)

    def forward(self, mel_db: Tensor) -> Tensor:
        """Embeddings [b, dim]; no gradient reaches the specialist."""
        embedding: Tensor = self.head(self.features(mel_db), self.specialist(mel_db).detach())
        return embedding

    def train(self, mode: bool = True) -> "FusionStudent":
        """Training mode for what learns; the specialist never does."""
        super().train(mode)
        self.specialist.eval()
        return self


def read_specialist(path: Path) -> Specialist:
    """The student in a checkpoint of a training run, `best.pt`. No code that the file holds is executed.

    Raises UserError if the file cannot be read, is no such checkpoint, or holds a fusion itself.
    """
    found = read_torch_file(path, "student.specialist", "give the best.pt of a trained student")
    checkpoint: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    experiment, model = checkpoint.get("config"), checkpoint.get("model")
    if not isinstance(experiment, Mapping) or not isinstance(model, Mapping) or "student" not in experiment:
        raise UserError(
            f"{path} is no checkpoint that says which student it holds: give the best.pt of a run of "
            "this version as student.specialist"
        )
    try:
        config = StudentConfig.model_validate(experiment["student"])
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UserError(
            f"{path} holds a student that this version does not know ({'.'.join(map(str, wrong['loc']))}: "
            f"{wrong['msg']}): train the specialist again"
        ) from error
    state = {name.removeprefix("student."): v for name, v in model.items() if name.startswith("student.")}
    if config.specialist is not None or RECORD in state:
        raise UserError(f"{path} holds a fusion; a specialist must be a student of one network")
    last = "head.linear.weight" if config.head == "linear" else "head.linear2.weight"
    if last not in state:
        raise UserError(f"{path} holds no audio student: give the best.pt of an audio run")
    return Specialist(config, state, len(state[last]), dict(experiment))


def specialist_config(state: Mapping[str, Tensor]) -> StudentConfig | None:
    """The specialist's configuration in a fused student's state; None if the state is of no fusion.

    The paths in it are left out: the state has the tensors that they stood for.
    """
    if RECORD not in state:
        return None
    return StudentConfig.model_validate(json.loads(bytes(state[RECORD].tolist())))
