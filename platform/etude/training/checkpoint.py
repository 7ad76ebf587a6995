"""Checkpoints that are whole or absent, and that load without running any code they hold.

A folder keeps the newest two, `epoch-0007.pt` and the one before, `best.pt` by the score, and `best_loss.pt`
where a system tells its loss on the validation set. Each is a torch archive of tensors and plain values, read
with `weights_only`.
"""

import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from etude.errors import UserError
from etude.torch_file import read_torch_file

KEEP = 2
State = dict[str, Any]
log = logging.getLogger(__name__)


def save_checkpoint(folder: Path, epoch: int, state: State, *, best: Sequence[str] = ()) -> Path:
    """Write the checkpoint after `epoch` finished epochs, and under the names `best`; only two stay."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"epoch-{epoch:04d}.pt"
    for name in best:  # first: an epoch whose checkpoint is there is not done again, so its best must be too
        _write(folder / f"{name}.pt", state)
    _write(path, state)
    for old in newest_first(folder)[KEEP:]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> State:
    """Read one checkpoint. Raises UserError if it is damaged."""
    state = read_torch_file(path, "the checkpoint", "choose another, or train again")
    if not isinstance(state, dict):
        raise UserError(f"{path} is no checkpoint of a run: choose another")
    return state


def load_run(path: Path) -> State:
    """Read a checkpoint to go on from. Raises UserError if it is damaged, or no run's."""
    state = load_checkpoint(path)
    if missing := sorted({"identity", "model", "optimizer", "history"} - state.keys()):
        raise UserError(
            f"{path} is no checkpoint of a run of this version, {missing[0]} is not in it: choose another"
        )
    return state


def load_latest(folder: Path) -> State | None:
    """The newest checkpoint that can be read, None if there is none; a damaged one is passed over, aloud."""
    for path in newest_first(folder):
        try:
            return load_checkpoint(path)
        except UserError as error:
            log.warning("%s; falling back to the one before", error)
    return None


def own_history(state: State) -> list[dict[str, float]]:
    """The epochs of the run that wrote a checkpoint, without those of one that it went on from."""
    history: list[dict[str, float]] = state["history"]
    return history[state["began"] :]


def newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.pt"), key=lambda path: (len(path.name), path.name), reverse=True)


def _write(path: Path, state: State) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
