"""The training loop: a system, batches, a plan, and one word to whoever runs it, `report`.

It runs the same inside a sweep's trial, inside a Ray Train worker, and in a test. A run that was cut off and
resumes from its checkpoint gives the same losses as one that was not.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from etude.config import Section
from etude.data.batches import Dataset, Splits, steps_per_epoch, training_batches
from etude.errors import UserError
from etude.objectives.weighting import weighted_sum
from etude.systems.base import System, parameters_with_decay
from etude.training.checkpoint import State, load_latest, save_checkpoint
from etude.training.schedule import Schedule


class TrainingConfig(Section):
    """How a student is trained."""

    epochs: int = Field(24, ge=1)
    batch_size: int = Field(16, ge=2, description="segments a step, over all workers together")
    segments_per_track: int = Field(2, ge=1, description="segments drawn from every track each epoch")
    learning_rate: float = Field(3e-3, gt=0, description="AdamW, at its peak")
    weight_decay: float = Field(0.02, ge=0, description="on matrices and kernels only")
    warmup_epochs: float = Field(1.0, ge=0)
    schedule: Literal["cosine", "plateau"] = "cosine"
    grad_clip: float = Field(5.0, gt=0, description="largest norm of all gradients together")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU with it"
    )


class Report(Protocol):
    """Called once an epoch, after its checkpoint is on disk."""

    def __call__(self, metrics: Mapping[str, float], checkpoint: Path) -> None: ...


class Trainable(System, Protocol):
    """A system that is a module and takes its losses, augmented, through the call."""

    def start_at(self, dataset: Dataset) -> None: ...
    def __call__(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]: ...


SCORE = "validation/skill"
CPU = torch.device("cpu")


def train(
    system: Trainable,
    splits: Splits,
    config: TrainingConfig,
    *,
    seed: int,
    folder: Path,
    report: Report,
    identity: Mapping[str, str],
    rank: int = 0,
    world_size: int = 1,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    device: torch.device = CPU,
    replay_after: int | None = None,
) -> None:
    """Train until `config.epochs`, resuming from `folder` if a checkpoint is there.

    `identity` names what a checkpoint must share with this run (recipe, teacher); `wrap` makes the module
    data-parallel. Every rank calls `report` after every epoch; only rank 0 writes checkpoints. With
    `replay_after`, epochs after it that the checkpoint already holds are reported again, for a listener
    that was cut off too. Raises UserError if a checkpoint belongs to something else or the loss is no
    longer a number.
    """
    module = _as_module(system).to(device)
    torch.manual_seed(seed * 1_000_003 + rank)  # dropout differs by rank; weights come from the caller's seed
    optimizer = torch.optim.AdamW(_groups(module, config.weight_decay), lr=config.learning_rate)
    steps = steps_per_epoch(splits.train, config.batch_size, config.segments_per_track)
    schedule = Schedule(
        config.schedule,
        total_steps=config.epochs * steps,
        warmup_steps=round(config.warmup_epochs * steps),
    )
    state = load_latest(folder)
    first_epoch, best, history = 0, -math.inf, []
    if state is None:
        system.start_at(splits.train)
    else:
        _check_identity(state, identity, folder)
        first_epoch, best, history = state["epoch"], state["best"], state["history"]
        module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        if world_size == 1:
            torch.set_rng_state(state["rng"])
        for metrics in history if replay_after is not None else ():
            if metrics["epoch"] > replay_after:
                report(metrics, folder / f"epoch-{int(metrics['epoch']):04d}.pt")
    parallel = wrap(module)

    for epoch in range(first_epoch, config.epochs):
        if world_size > 1:  # one checkpoint serves all ranks, so each draws its dropout anew every epoch
            torch.manual_seed((seed * 1_000_003 + epoch) * 1_009 + rank)
        started = time.monotonic()
        metrics = _epoch(
            parallel,
            splits.train,
            optimizer,
            schedule,
            system.weights,
            config,
            seed=seed,
            epoch=epoch,
            steps=steps,
            rank=rank,
            world_size=world_size,
            device=device,
        )
        metrics |= system.evaluate(splits.validation, config.batch_size).as_dict("validation")
        metrics["seconds"] = time.monotonic() - started
        metrics["epoch"] = epoch + 1
        score = metrics[SCORE]
        schedule.observe(score)
        is_best = score > best or epoch == 0
        best = max(best, score) if not math.isnan(score) else best
        history.append(metrics)
        path = folder / f"epoch-{epoch + 1:04d}.pt"
        if rank == 0:
            path = save_checkpoint(
                folder,
                epoch + 1,
                {
                    "identity": dict(identity),
                    "epoch": epoch + 1,
                    "best": best,
                    "history": history,
                    "model": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "rng": torch.get_rng_state(),
                },
                best=is_best,
            )
        report(metrics, path)


def _epoch(
    module: nn.Module,
    dataset: Dataset,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    weights: dict[str, float],
    config: TrainingConfig,
    *,
    seed: int,
    epoch: int,
    steps: int,
    rank: int,
    world_size: int,
    device: torch.device,
) -> dict[str, float]:
    """One pass; returns the mean of every loss term and the last learning rate."""
    module.train()
    sums: dict[str, float] = {}
    rate = 0.0
    batches = training_batches(
        dataset, seed=seed, epoch=epoch, batch_size=config.batch_size,
        segments_per_track=config.segments_per_track, rank=rank, world_size=world_size,
    )  # fmt: skip
    n_batches = 0
    for step, batch in enumerate(batches):
        rate = config.learning_rate * schedule.factor(epoch * steps + step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(((seed * 7919 + epoch) * 65_537 + step) * 64 + rank)
        with _autocast(config.precision, device):
            terms = module(batch.to(device), generator)
            loss = weighted_sum(terms, weights)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1}: lower "
                "training.learning_rate or training.grad_clip"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), config.grad_clip)
        optimizer.step()
        for name, term in {**terms, "loss": loss}.items():
            sums[name] = sums.get(name, 0.0) + float(term.detach())
        n_batches += 1
    assert n_batches == steps, f"{n_batches} batches came, {steps} were planned"
    return {f"train/{name}": total / n_batches for name, total in sums.items()} | {"learning_rate": rate}


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    wanted = precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
    return torch.autocast(device.type, dtype=torch.bfloat16) if wanted else nullcontext()


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decayed, free = parameters_with_decay(module)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _check_identity(state: State, identity: Mapping[str, str], folder: Path) -> None:
    for key, value in identity.items():
        if state["identity"].get(key) != value:
            raise UserError(
                f"the checkpoint in {folder} was made with {key} {state['identity'].get(key)}, this run has "
                f"{value}: give the run another name or delete that folder"
            )


def _as_module(system: Any) -> nn.Module:
    assert isinstance(system, nn.Module)
    return system
