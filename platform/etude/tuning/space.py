"""A search space: dotted configuration keys to distributions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field, model_validator
from ray import tune
from ray.tune.search.sample import Domain

from etude.config import Section, keys, unknown_key
from etude.errors import UserError
from etude.experiments.base import Experiment


class Distribution(Section):
    """How one key varies; exactly one of these is given."""

    choice: list[Any] | None = Field(None, min_length=1, description="one of these")
    uniform: tuple[float, float] | None = Field(None, description="evenly between two numbers")
    loguniform: tuple[float, float] | None = Field(None, description="evenly between their logarithms")
    quniform: tuple[float, float, float] | None = Field(None, description="evenly, in steps of the third")
    randint: tuple[int, int] | None = Field(None, description="an integer, the second left out")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Distribution":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}, not {given}")
        bounds = getattr(self, given[0])
        if given[0] != "choice" and not bounds[0] < bounds[1]:
            raise ValueError(f"{given[0]} needs its first number below its second")
        if given[0] == "loguniform" and bounds[0] <= 0:
            raise ValueError("loguniform needs numbers above 0")
        if given[0] != "choice" and not all(map(math.isfinite, bounds)):
            raise ValueError(f"{given[0]} needs finite numbers")
        if self.quniform is not None:
            self._check_steps(*self.quniform)
        return self

    def _check_steps(self, low: float, high: float, step: float) -> None:
        if step <= 0 or any(abs(end / step - round(end / step)) > 1e-6 for end in (low, high)):
            raise ValueError("quniform needs a step above 0, of which its two bounds are multiples")

    @property
    def largest(self) -> float:
        """The largest number of those that it may be."""
        bounds = self.uniform or self.loguniform or self.quniform or self.randint
        return float(bounds[1]) if bounds else max(self.choice or ())

    def domain(self) -> Domain:
        """The same as Ray Tune knows it."""
        if self.choice is not None:
            return tune.choice(self.choice)
        if self.uniform is not None:
            return tune.uniform(*self.uniform)
        if self.loguniform is not None:
            return tune.loguniform(*self.loguniform)
        if self.quniform is not None:
            return tune.quniform(*self.quniform)
        assert self.randint is not None
        return tune.randint(*self.randint)


Space = dict[str, Distribution]


def check_space(varied: Iterable[str], kind: type[Experiment]) -> None:
    """Raises UserError if a key is none of the configuration's, or must not differ between trials."""
    known = set(keys(kind))
    for key in varied:
        if key not in known:
            raise UserError(f"the search space names a key that is none: {unknown_key(kind, key)}")
        if key.split(".")[0] in kind.shared:
            raise UserError(
                f"the search space varies {key}, but trials must share {key.split('.')[0]}: take it out"
            )


def sample(space: Mapping[str, Distribution], n_trials: int, seed: Sequence[int]) -> list[dict[str, Any]]:
    """Draw every trial's overrides beforehand, so that an interrupted sweep goes on with the same ones."""
    random_state = np.random.default_rng(list(seed))
    return [{key: draw_one(space[key], random_state) for key in sorted(space)} for _ in range(n_trials)]


def draw_one(distribution: Distribution, random_state: np.random.Generator) -> Any:
    """One value; what is listed is meant as it is."""
    value = distribution.domain().sample(random_state=random_state)
    if isinstance(value, np.generic):
        value = value.item()
    return value if distribution.choice is not None else rounded(value)


def rounded(value: float) -> float:
    """Rounded floats read well and survive YAML unchanged."""
    return float(f"{value:.4g}") if isinstance(value, float) else value
