"""The training loop: a system, data, a plan, and one word to whoever runs it, `report`.

It runs the same inside a sweep's trial, inside a Ray Train worker, and in a test. A run that was cut off and
resumes from its checkpoint gives the same losses as one that was not.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Protocol

import torch
from torch import nn

from etude.errors import UserError
from etude.storage.files import Files, Place
from etude.systems.base import System, TrainingData
from etude.training.checkpoint import State, checkpoint_name, load_latest, load_run, save_checkpoint
from etude.training.epoch import Learner, Position, Worker, learn, steps_and_parts
from etude.training.optimizer import adamw, parameter_groups
from etude.training.plan import Stage, TrainingConfig
from etude.training.schedule import Schedule

SCORE = "score"
LOSS = "validation/loss"


class Report(Protocol):
    """Called once an epoch, after its checkpoint is where it stays."""

    def __call__(self, metrics: Mapping[str, float], checkpoint: str) -> None: ...


class Data(Protocol):
    """What a run learns from, and the held-out data that tells how well."""

    @property
    def training(self) -> TrainingData: ...

    @property
    def validation(self) -> Any: ...


def train(
    system: System,
    data: Data,
    config: TrainingConfig,
    *,
    seed: int,
    folder: Place,
    report: Report,
    identity: Mapping[str, str],
    configuration: Mapping[str, Any] | None = None,
    worker: Worker | None = None,
    replay_after: int | None = None,
    until: int | None = None,
) -> None:
    """Train through all stages, resuming from `folder` if a checkpoint is there.

    `identity` names what a checkpoint must share with this run (recipe, teacher); `configuration` is kept
    in every checkpoint. Every rank calls `report` after every epoch; only rank 0 writes checkpoints. With
    `replay_after`, epochs after it that the checkpoint already holds are reported again, for a listener
    that was cut off too. With `until`, it ends after so many epochs in all, to be resumed later. Raises
    UserError if a checkpoint belongs to something else or the loss is no longer a number.
    """
    worker = worker or Worker()
    module = _as_module(system).to(worker.device)
    if config.compile:
        system.compile_student()
    torch.manual_seed(seed * 1_000_003 + worker.rank)  # dropout differs by rank; the weights are there
    files = Files(folder)
    state = load_latest(files)
    foreign = state is None and config.start_from is not None
    if foreign:
        assert config.start_from is not None
        state = load_run(config.start_from)
    position = Position()
    if state is None:
        system.start_at(data.training)
    else:
        _check_identity(state, identity, config.start_from if foreign else folder, foreign)
        _load_model(module, state, config.start_from if foreign else folder)
        position = _position(state, config, foreign)
        if foreign and "logit_scale" in config.reset:
            system.reset_logit_scale()
        for metrics in position.history if not foreign else ():
            if replay_after is not None and metrics["epoch"] > max(replay_after, position.began):
                report(metrics, files.address(checkpoint_name(int(metrics["epoch"]))))

    for index, stage in list(enumerate(config.stages))[position.stage :]:
        if index > position.stage:
            position.stage, position.stage_epoch, position.origin = index, 0, 0
        if stage.head_only:
            system.train_head_only()
        groups = parameter_groups(module, system.rate_of)
        optimizer = adamw(groups, stage.learning_rate, config.weight_decay)
        steps, _ = steps_and_parts(data.training, config)
        schedule = Schedule(
            config.schedule,
            total_steps=(stage.epochs - position.origin) * steps,
            warmup_steps=round(stage.warmup_epochs * steps),
            floor=config.floor,
            plateau=config.plateau,
        )
        if state is not None and position.stage_epoch:
            _load_stage(state, optimizer, schedule, config, foreign)
            if worker.world_size == 1 and not foreign:
                torch.set_rng_state(state["rng"])
        state = None
        rates = [group.rate for group in groups]
        learner = Learner(
            worker.wrap(module), system.weights, config, stage, optimizer, rates, schedule, seed, worker
        )
        while not _over(position, stage, config.patience):
            if until is not None and position.epoch >= until:
                return
            started = time.monotonic()
            metrics = learn(learner, data.training, position)
            found = system.evaluate(data.validation, config.batch_size)
            metrics |= found.as_dict("validation") | {SCORE: found.score}
            metrics = _of_first_rank(metrics, worker)
            metrics |= {"seconds": time.monotonic() - started, "stage": float(stage.number)}
            metrics["workers"] = float(worker.world_size)
            metrics |= {"epoch": position.epoch + 1, "at_ms": float(round(1000 * time.time()))}
            schedule.observe(metrics[SCORE])
            is_best = metrics[SCORE] > position.best or not files.exists("best.pt")
            if not math.isnan(metrics[SCORE]):
                position.best = max(position.best, metrics[SCORE])
            position.history.append(metrics)
            position.stage_epoch += 1
            path = files.address(checkpoint_name(position.epoch))
            if worker.rank == 0:
                saved = {
                    "identity": dict(identity),
                    "config": dict(configuration or {}),
                    "epoch": position.epoch,
                    **vars(position),
                    "model": module.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "rng": torch.get_rng_state(),
                }
                path = save_checkpoint(files, position.epoch, saved, best=_best_by(position, is_best))
            report(metrics, path)
    if foreign and position.epoch == position.began:
        raise UserError(
            f"{config.start_from} has all {position.epoch} epochs that this run is to have: raise "
            "training.epochs or training.stage2_epochs"
        )


def _best_by(position: Position, score_is_best: bool) -> list[str]:
    """As what an epoch's checkpoint is kept: the best by score, the best by loss where that is known."""
    names = ["best"] if score_is_best else []
    *before, loss = [metrics.get(LOSS, math.nan) for metrics in position.history[position.began :]]
    if not math.isnan(loss) and all(not other <= loss for other in before):
        names.append("best_loss")
    return names


def _over(position: Position, stage: Stage, patience: int | None) -> bool:
    """Whether a stage has had its epochs, or its best score lies further back than `patience`."""
    if position.stage_epoch >= stage.epochs:
        return True
    own = position.history[position.began :]
    scores = [entry[SCORE] for entry in own if entry["stage"] == stage.number]
    known = [-math.inf if math.isnan(score) else score for score in scores]
    return bool(known) and patience is not None and len(known) - 1 - known.index(max(known)) >= patience


def _position(state: State, config: TrainingConfig, foreign: bool) -> Position:
    """Where a checkpoint's run had come to."""
    position = Position(**{each.name: state[each.name] for each in fields(Position) if each.name in state})
    if foreign:
        position.best = -math.inf  # of this run, whose best checkpoint is its own
        position.began = position.epoch
        if "schedule" in config.reset:
            position.origin = position.stage_epoch
    if position.stage >= len(config.stages):
        raise UserError(
            f"{config.start_from} has come to stage {position.stage + 1}, which this run has not: raise "
            "training.stage2_epochs"
        )
    return position


def _load_stage(
    state: State, optimizer: torch.optim.Optimizer, schedule: Schedule, config: TrainingConfig, foreign: bool
) -> None:
    reset = config.reset if foreign else ()
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    if "optimizer" not in reset:
        try:
            optimizer.load_state_dict(state["optimizer"])
        except ValueError:  # of parameter groups with other sizes
            raise UserError(
                f"{config.start_from} trained other layers than this run does, so its optimiser is of no use "
                "here: add optimizer to training.reset"
            ) from None
    if "weight_decay" in reset or not foreign:
        for group, decay in zip(optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
    if "schedule" not in reset:
        schedule.load_state_dict(state["schedule"])


def _load_model(module: nn.Module, state: State, where: Place | None) -> None:
    try:
        module.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip().rstrip(".:")
        raise UserError(
            f"the checkpoint in {where} does not fit this run ({reason}): configure the student or the pair, "
            "and the objective, as they were there"
        ) from error


def _of_first_rank(metrics: dict[str, float], worker: Worker) -> dict[str, float]:
    """Rank 0's figures on every rank: each has batch statistics of its own, but all must decide alike."""
    if worker.world_size == 1:
        return metrics
    first = [metrics]
    torch.distributed.broadcast_object_list(first, src=0, device=worker.device)
    return first[0]


def _check_identity(state: State, identity: Mapping[str, str], where: Place | None, foreign: bool) -> None:
    for key, value in identity.items():
        if state["identity"].get(key) != value and not (foreign and key == "data"):
            mend = (
                "choose another, or configure this run as that one was"
                if foreign
                else "give the run another name or delete that folder"
            )
            raise UserError(
                f"the checkpoint in {where} was made with {key} {state['identity'].get(key)}, this run has "
                f"{value}: {mend}"
            )


def _as_module(system: Any) -> nn.Module:
    assert isinstance(system, nn.Module)
    return system
