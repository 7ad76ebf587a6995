"""One pass over the training data: the place where weights change."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import nn

from etude.errors import UserError
from etude.objectives.weighting import weighted_sum
from etude.systems.base import TrainingData
from etude.training.plan import Stage, TrainingConfig
from etude.training.prefetch import prefetch
from etude.training.schedule import Schedule

CPU = torch.device("cpu")


@dataclass
class Position:
    """How far a run has come."""

    stage: int = 0  # index of the stage that goes on
    stage_epoch: int = 0  # epochs of it that are done
    origin: int = 0  # epoch of the stage at which its schedule starts
    began: int = 0  # epochs that another run had done before this one, over all stages
    best: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """Epochs that are done, over all stages."""
        return len(self.history)


@dataclass(frozen=True)
class Worker:
    """Which share of every batch this process takes, and where it computes."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module  # makes the module data-parallel


@dataclass(frozen=True)
class Learner:
    """What learns in a stage, and by which plan."""

    module: nn.Module  # the system, data-parallel where there are several workers
    weights: dict[str, float]  # of the loss terms
    config: TrainingConfig
    stage: Stage
    optimizer: torch.optim.Optimizer
    rates: Sequence[float]  # what each of its groups' learning rate is multiplied by
    schedule: Schedule
    seed: int
    worker: Worker


def learn(learner: Learner, data: TrainingData, position: Position) -> dict[str, float]:
    """One epoch; the mean of every loss term and of the gradient's norm, and the last learning rate.

    Raises UserError if the loss or a gradient is no longer a number.
    """
    config, worker, seed, epoch = learner.config, learner.worker, learner.seed, position.epoch
    if worker.world_size > 1:  # one checkpoint serves all ranks, so each draws its dropout anew every epoch
        torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + worker.rank)
    learner.module.train()
    steps, parts = steps_and_parts(data, config)
    first_step = (position.stage_epoch - position.origin) * steps
    sums: dict[str, float] = {}
    rate = waited = 0.0
    batches = data.batches(
        config.batch_size // config.accumulate,
        seed=seed, epoch=epoch, rank=worker.rank, world_size=worker.world_size,
    )  # fmt: skip
    with closing(prefetch(islice(batches, steps * parts))) as coming:
        for number in range(steps * parts):
            asked = time.monotonic()
            batch = next(coming).to(worker.device)
            waited += time.monotonic() - asked
            draws = ((seed * 7919 + epoch) * 65_537 + number) * 64 + worker.rank
            completes_step = (number + 1) % parts == 0
            with _gradients_shared(learner, completes_step):
                terms = _backward(learner, batch, torch.Generator().manual_seed(draws), parts)
            if completes_step:
                rate = learner.stage.learning_rate * learner.schedule.factor(first_step + number // parts)
                terms["grad_norm"] = _step(learner, rate) * parts
            for name, what in (("loss", "loss"), ("grad_norm", "gradient's norm")):
                if not math.isfinite(terms.get(name, 0.0)):
                    raise UserError(
                        f"the {what} became {terms[name]} in epoch {epoch + 1}, step {number // parts + 1}: "
                        "lower training.learning_rate or training.grad_clip"
                    )
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value
    means = {f"train/{name}": total / (steps * parts) for name, total in _of_all_ranks(sums, worker).items()}
    return means | {"learning_rate": rate, "seconds_waiting": waited}


def steps_and_parts(data: TrainingData, config: TrainingConfig) -> tuple[int, int]:
    """Optimiser steps an epoch, and batches that each is made of."""
    n_batches = data.steps(config.batch_size // config.accumulate)
    parts = min(config.accumulate, n_batches)
    return n_batches // parts, parts


def _of_all_ranks(figures: dict[str, float], worker: Worker) -> dict[str, float]:
    """The mean over ranks, each of which has seen its share of every batch alone."""
    if worker.world_size == 1:
        return figures
    values = torch.tensor([figures[name] for name in sorted(figures)], dtype=torch.float64).to(worker.device)
    torch.distributed.all_reduce(values)
    return dict(zip(sorted(figures), (values / worker.world_size).tolist(), strict=True))


def _backward(learner: Learner, batch: Any, generator: torch.Generator, parts: int) -> dict[str, float]:
    """Add a batch's gradients; its terms, and their weighted sum as `loss`."""
    with _autocast(learner.config.precision, learner.worker.device):
        terms = learner.module(batch, generator)
        loss = weighted_sum(terms, learner.weights)
    (loss / parts).backward()  # type: ignore[no-untyped-call]
    return {name: float(term.detach()) for name, term in {**terms, "loss": loss}.items()}


def _step(learner: Learner, rate: float) -> float:
    """Move the weights; returns the norm of all gradients before clipping."""
    for group, factor in zip(learner.optimizer.param_groups, learner.rates, strict=True):
        group["lr"] = rate * factor
    norm = nn.utils.clip_grad_norm_(learner.module.parameters(), learner.config.grad_clip)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    return float(norm)


def _gradients_shared(learner: Learner, wanted: bool) -> AbstractContextManager[Any]:
    """Data-parallel modules average gradients at every backward unless told not to."""
    if wanted or learner.worker.world_size == 1:
        return nullcontext()
    return learner.module.no_sync()  # type: ignore[operator, no-any-return]


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    wanted = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, dtype=torch.bfloat16) if wanted else nullcontext()
