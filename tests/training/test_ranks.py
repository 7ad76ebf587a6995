"""Several processes that train one student decide alike."""

import contextlib
import os
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from etude.services.daemon import free_port
from etude.training.epoch import Worker
from etude.training.loop import train
from etude.training.plan import TrainingConfig
from etude.training.schedule import PlateauConfig
from tests.support.library import made_up_splits
from tests.training.test_loop import IDENTITY, Stopped, library, same, system, timeless

CONFIG = TrainingConfig(
    epochs=3, stage2_epochs=2, batch_size=8, warmup_epochs=0, schedule="plateau", accumulate=2,
    plateau=PlateauConfig(patience=0, threshold=0.5), patience=3,
)  # fmt: skip


def _rank(rank: int, root: Path, run: str, stops: tuple[int, ...], port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    data = library(made_up_splits(root / f"{run}-store-{rank}"), "both", 2)
    reports: list[dict[str, float]] = []
    for stop in stops:

        def report(metrics, checkpoint, stop=stop):  # type: ignore[no-untyped-def]
            reports.append(dict(metrics))
            if metrics["epoch"] == stop:
                raise Stopped

        with contextlib.suppress(Stopped):
            train(
                system("both"), data, CONFIG, seed=3, folder=root / run, report=report, identity=IDENTITY,
                worker=Worker(rank, 2, wrap=DistributedDataParallel),
            )  # fmt: skip
        torch.distributed.barrier()
    torch.save(reports, root / f"{run}-{rank}.pt")
    torch.distributed.destroy_process_group()


def _figures(path: Path) -> list[dict[str, float]]:
    return [timeless(entry) for entry in torch.load(path)]


@pytest.mark.slow
def test_ranks_decide_alike_and_resume_exactly(tmp_path: Path) -> None:
    """Each rank's batch statistics are its own, and with them its score: one has to count for all."""
    for run, stops in (("whole", (99,)), ("parts", (2, 3, 4, 99))):
        torch.multiprocessing.spawn(_rank, (tmp_path, run, stops, free_port()), nprocs=2)
    whole, other, parts = (_figures(tmp_path / f"{name}.pt") for name in ("whole-0", "whole-1", "parts-0"))
    assert [entry["stage"] for entry in whole] == [1, 1, 1, 2, 2]
    assert same(whole, other)
    assert same(parts, whole)
