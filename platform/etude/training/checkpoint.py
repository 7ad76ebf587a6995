"""Checkpoints that are whole or absent, and that load without running any code they hold.

A run's folder, which may be on S3, keeps the newest two, `epoch-0007.pt` and the one before, `best.pt` by the
score, and `best_loss.pt` where a system tells its loss on the validation set. Each is a torch archive of
tensors and plain values, read with `weights_only`.
"""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from etude.errors import StorageError, UserError
from etude.storage.files import Files, Place, split
from etude.torch_file import read_torch_file

KEEP = 2
State = dict[str, Any]
log = logging.getLogger(__name__)


def checkpoint_name(epoch: int) -> str:
    """What the checkpoint after so many finished epochs is called."""
    return f"epoch-{epoch:04d}.pt"


def save_checkpoint(folder: Place, epoch: int, state: State, *, best: Sequence[str] = ()) -> str:
    """Write the checkpoint after `epoch` finished epochs, and under the names `best`; only two stay.

    Those of later epochs, which could not be read or this run would not be here, go too. Returns where it is.
    """
    files = Files(folder)
    sink = io.BytesIO()
    torch.save(state, sink)
    # The best first: an epoch whose checkpoint is there is not done again, so its best must be too.
    for name in (*(f"{name}.pt" for name in best), checkpoint_name(epoch)):
        files.write(name, sink.getbuffer())
    there = newest_first(files)
    at = there.index(checkpoint_name(epoch))
    # What a process that was killed had not finished.
    cut_off = [name for name in files.list("", ".tmp") if name.startswith(("epoch-", "best"))]
    files.delete_all([*there[:at], *there[at + KEEP :], *cut_off])
    return files.address(checkpoint_name(epoch))


def load_checkpoint(path: str | Path) -> State:
    """Read one checkpoint. Raises UserError if it is damaged, StorageError if it cannot be reached."""
    mend = "choose another, or train again"
    try:
        files, name = split(path)
        content = files.read(name)
    except StorageError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path} ({error.strerror or error}): {mend}") from error
    if content is None:
        raise UserError(f"cannot read the checkpoint {path} (No such file or directory): {mend}")
    state = read_torch_file(path, "the checkpoint", mend, content=content)
    if not isinstance(state, dict):
        raise UserError(f"{path} is no checkpoint of a run: choose another")
    return state


def load_run(path: str | Path) -> State:
    """Read a checkpoint to go on from. Raises UserError if it is damaged, or no run's."""
    state = load_checkpoint(path)
    if missing := sorted({"identity", "model", "optimizer", "history"} - state.keys()):
        raise UserError(
            f"{path} is no checkpoint of a run of this version, {missing[0]} is not in it: choose another"
        )
    return state


def load_latest(folder: Place) -> State | None:
    """The newest checkpoint that is whole, None if there is none; a damaged one is passed over, aloud.

    Raises UserError if one cannot be reached now.
    """
    files = Files(folder)
    for name in newest_first(files):
        try:
            return load_checkpoint(files.address(name))
        except UserError as error:
            if isinstance(error, StorageError) or isinstance(error.__cause__, OSError):
                raise  # what cannot be reached is not damaged
            log.warning("%s; falling back to the one before", error)
    return None


def own_history(state: State) -> list[dict[str, float]]:
    """The epochs of the run that wrote a checkpoint, without those of one that it went on from."""
    history: list[dict[str, float]] = state["history"]
    return history[state["began"] :]


def newest_first(files: Files) -> list[str]:
    """The names of a run's checkpoints of epochs."""
    found = [path for path in files.list("", ".pt") if path.startswith("epoch-") and "/" not in path]
    return sorted(found, key=lambda name: (len(name), name), reverse=True)
