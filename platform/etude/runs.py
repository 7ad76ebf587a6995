"""Runs as their checkpoints tell of them: figures by epoch, configurations, costs."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.storage.files import split
from etude.training.checkpoint import State, load_checkpoint, load_latest

USUAL = (
    "train/loss", "train/cosine", "train/contrastive", "validation/cosine", "validation/skill",
    "validation/text_to_music_mrr", "validation/text_to_music_recall_at_10", "learning_rate",
)  # fmt: skip


def runs_report(paths: Sequence[str | Path], columns: Sequence[str] = ()) -> str:
    """A table of every epoch of every run below the paths, beginning with the run's name.

    Raises UserError if there is no run, or a figure that no epoch has.
    """
    found = [one for path in paths for one in _runs(path)]
    if not found:
        where = ", ".join(str(path) for path in paths) or "nothing"
        raise UserError(f"no checkpoint below {where}: give a run, or a folder of runs")
    return "\n\n".join(_table(folder, state, columns) for folder, state in found)


def made_with(paths: Sequence[str | Path]) -> str:
    """The configuration in a checkpoint, as YAML. Raises UserError if it holds none."""
    found = [one for path in paths for one in _runs(path)]
    if len(found) != 1:
        raise UserError(f"here are {len(found)} runs: give one checkpoint, or one run's folder")
    where, state = found[0]
    config = state.get("config")
    if not config:
        raise UserError(f"{where} does not say which configuration made it: choose another")
    return str(yaml.safe_dump(config, sort_keys=False)).rstrip()


def cost_report(settings: Experiment) -> str:
    """Parameters and multiply-adds of the configured student, in the space of the configured teacher."""
    cost = settings.cost()
    return (
        f"{cost.parameters:,} parameters, {4 * cost.parameters / 1e6:.1f} MB as float32\n"
        f"{cost.macs:,} multiply-adds an item (10 s of music, or a query of the greatest length)"
    )


def _runs(path: str | Path) -> Iterator[tuple[str, State]]:
    """A checkpoint itself, or each run's folder below a path with its newest checkpoint that can be read."""
    around, name = split(path)
    if around.exists(name):
        yield around.address(name), load_checkpoint(path)
        return
    below = around.at(name)
    found = below.list("", "")
    if not found and not (below.local and Path(below.root).is_dir()):
        raise UserError(f"there is no {below}: give a checkpoint, a run, or a folder of runs")
    files = [below.address(file) for file in found if PurePosixPath(file).match("epoch-*.pt")]
    for folder in sorted({split(file)[0].root for file in files}):
        state = load_latest(folder)
        if state is not None:
            yield folder, state


def _table(folder: str, state: State, columns: Sequence[str]) -> str:
    history: list[dict[str, Any]] | None = state.get("history")
    if not history:
        raise UserError(f"{folder} holds no epochs, so it is no checkpoint of a run: choose another")
    known = {name for entry in history for name in entry}
    if strange := [name for name in columns if name not in known]:
        raise UserError(f"{folder} has no figure {strange[0]}; it has {', '.join(sorted(known))}")
    shown = columns or [name for name in USUAL if name in known]
    header = ["epoch", *(["stage"] if "stage" in known else []), *shown]
    rows = [[_cell(name, entry) for name in header] for entry in history]
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *rows]]
    return f"{folder}  (best {state['best']:.4f})\n" + "\n".join(lines)


def _cell(name: str, entry: dict[str, Any]) -> str:
    if name not in entry:
        return "-"
    value = entry[name]
    return f"{value:.0f}" if name in ("epoch", "stage") else f"{value:.5g}"
