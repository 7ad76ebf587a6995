"""One student from its settings to its last epoch, in whatever process: a trial's, a worker's, or alone."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from etude.experiments.base import Experiment, configuration
from etude.storage.files import Files
from etude.tracking.tensorboard import write_scalars
from etude.training.checkpoint import load_latest
from etude.training.epoch import Worker
from etude.training.loop import Report, train
from etude.training.synchronised import synchronise


@dataclass(frozen=True)
class Run:
    """One student to be trained: how, and where its checkpoints lie."""

    name: str
    settings: Experiment
    folder: Files
    run_id: str | None = None  # in MLflow; None: whoever listens tells MLflow
    replay_after: int | None = None  # these two are those of `etude.training.loop.train`
    until: int | None = None
    shown: int = 0  # epochs that are on the board already

    @property
    def best(self) -> str:
        """Its best checkpoint, once it has learned anything."""
        return self.folder.address("best.pt")


def train_run(run: Run, worker: Worker, report: Report) -> None:
    """Train a run, or go on with it; every rank of its workers calls this, and `report` after every epoch."""
    if worker.device.type == "cpu":
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    settings, study = run.settings, run.settings.open()
    board = settings.tracking.tensorboard

    def tell(metrics: Mapping[str, float], checkpoint: str) -> None:
        epoch = int(metrics["epoch"])
        if board and worker.rank == 0 and epoch > run.shown:
            write_scalars(board / run.name, metrics, epoch)
        report(metrics, checkpoint)

    begun = load_latest(run.folder)
    system = study.system(settings.seed, begun and begun["model"])
    if worker.world_size > 1:
        assert isinstance(system, nn.Module)
        synchronise(system)  # so that the number of workers changes no loss
    train(
        system,
        study,
        settings.training,
        seed=settings.seed,
        folder=run.folder,
        report=tell,
        identity=study.identity(),
        configuration=configuration(settings),
        worker=worker,
        replay_after=run.replay_after,
        until=run.until,
    )
