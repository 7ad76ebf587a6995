"""What the five emotion networks are made of: one list of layers each, from which all else follows.

The torch module, the count of parameters, the RTNeural file and the description read these lists.
Widths, activations and dropout: facts/projection_and_emotion.md, b, variants A (`dense`, the seed's) and B
(`recurrent`, the plug-in's). Two outputs differ from upstream's:

- melody ends in softmax, not in sigmoids. It is a distribution over pitches; sigmoids would have to learn
  from the data that their sum is 1, and no divergence from a distribution is defined where it is not.
- groove of B ends in sigmoid, not in tanh: density and accent lie within 0 and 1.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from etude.config import Section
from etude.emotion.models import Model

Variant = Literal["dense", "recurrent"]
Activation = Literal["linear", "relu", "tanh", "sigmoid", "softmax"]
VARIANTS: tuple[Variant, ...] = ("dense", "recurrent")


@dataclass(frozen=True)
class Dense:
    """A linear map, then the activation, then batch norm if it has one, then dropout."""

    n_out: int
    activation: Activation
    batch_norm: bool = False
    dropout: float = 0.0

    def parameters(self, n_in: int) -> int:
        return (n_in + 1) * self.n_out + 2 * self.n_out * self.batch_norm

    def __str__(self) -> str:
        norm = " + batch norm" if self.batch_norm else ""
        return f"{self.n_out} {self.activation}{norm}"


@dataclass(frozen=True)
class Lstm:
    """An LSTM that sees a sequence of one step, which makes it a gated dense layer."""

    n_out: int

    def parameters(self, n_in: int) -> int:
        return 4 * self.n_out * (n_in + self.n_out + 2)

    def __str__(self) -> str:
        return f"LSTM {self.n_out}"


@dataclass(frozen=True)
class Plan:
    """A network: how many numbers go in, and its layers. The last is dense, and has no batch norm."""

    n_in: int
    layers: tuple[Dense | Lstm, ...]
    standardised: bool = False  # subtracts a mean from its input, and divides by a spread

    def __post_init__(self) -> None:
        assert not self.output.batch_norm and not self.output.dropout

    @property
    def output(self) -> Dense:
        last = self.layers[-1]
        assert isinstance(last, Dense)
        return last

    @property
    def sizes_in(self) -> tuple[int, ...]:
        """How many numbers each layer takes."""
        return (self.n_in, *(layer.n_out for layer in self.layers[:-1]))

    @property
    def parameters(self) -> int:
        """What is trained; statistics of batch norm and of standardisation are not."""
        return sum(layer.parameters(n_in) for n_in, layer in zip(self.sizes_in, self.layers, strict=True))

    def __str__(self) -> str:
        return f"{self.n_in} -> {' -> '.join(map(str, self.layers))}, {self.parameters:,} parameters"


PLANS: dict[tuple[Model, Variant], Plan] = {
    ("recognizer", "dense"): Plan(
        128,
        (Dense(256, "relu", True, 0.3), Dense(128, "relu", True, 0.2), Dense(64, "tanh")),
        standardised=True,
    ),
    ("melody", "dense"): Plan(
        64, (Dense(128, "relu", True, 0.3), Dense(256, "relu", True, 0.2), Dense(128, "softmax"))
    ),
    ("harmony", "dense"): Plan(128, (Dense(128, "relu", True, 0.3), Dense(64, "relu"), Dense(64, "softmax"))),
    ("dynamics", "dense"): Plan(32, (Dense(64, "relu", True), Dense(32, "relu"), Dense(16, "sigmoid"))),
    ("groove", "dense"): Plan(64, (Dense(64, "relu", True, 0.2), Dense(32, "relu"), Dense(32, "sigmoid"))),
    ("recognizer", "recurrent"): Plan(
        128, (Dense(512, "tanh"), Dense(256, "tanh"), Lstm(128), Dense(64, "tanh")), standardised=True
    ),
    ("melody", "recurrent"): Plan(
        64, (Dense(256, "relu"), Lstm(256), Dense(256, "relu"), Dense(128, "softmax"))
    ),
    ("harmony", "recurrent"): Plan(128, (Dense(256, "tanh"), Dense(128, "tanh"), Dense(64, "softmax"))),
    ("dynamics", "recurrent"): Plan(32, (Dense(128, "relu"), Dense(64, "relu"), Dense(16, "sigmoid"))),
    ("groove", "recurrent"): Plan(64, (Dense(128, "tanh"), Dense(64, "tanh"), Dense(32, "sigmoid"))),
}


class EmotionStudentConfig(Section):
    """Which of the two families of networks learns, and what of it stays as it is."""

    variant: Variant = Field(
        "dense", description="dense: seed 5's; recurrent: the plug-in's, six times as large"
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="after every hidden dense layer; None: as seed 5 has it, 0 to 0.3"
    )
    frozen_layers: int = Field(
        0, ge=0, description="so many of the first layers keep weights and statistics, to fine-tune the rest"
    )


def plan_of(model: Model, config: EmotionStudentConfig) -> Plan:
    """The plan that a configuration means."""
    plan = PLANS[model, config.variant]
    if config.dropout is None:
        return plan
    hidden = tuple(
        dataclasses.replace(layer, dropout=config.dropout) if isinstance(layer, Dense) else layer
        for layer in plan.layers[:-1]
    )
    return dataclasses.replace(plan, layers=(*hidden, plan.output))


def folded_plan(plan: Plan, *, standardisation: bool) -> Plan:
    """The same network for inference: what batch norm and, if so, standardisation do is in its weights."""
    layers = tuple(
        Dense(layer.n_out, layer.activation) if isinstance(layer, Dense) else layer for layer in plan.layers
    )
    return Plan(plan.n_in, layers, plan.standardised and not standardisation)
