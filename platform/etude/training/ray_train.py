"""The training loop on one or more workers through Ray Train, with failures retried.

Several students are trained by the same workers one after the other, since to start those takes a while.
All workers see the same global batches; gradients are averaged. A worker that dies is replaced and all go on
from the last checkpoint, whose losses then equal those of a run that was not disturbed.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import ray.train
import torch
from pydantic import Field
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import nn

from etude.cli import say
from etude.config import Section
from etude.errors import UserError
from etude.experiments.base import Experiment, configuration
from etude.storage.files import Files
from etude.tracking.mlflow import Tracking
from etude.tracking.tensorboard import write_scalars
from etude.training.checkpoint import load_latest
from etude.training.epoch import Worker
from etude.training.loop import train
from etude.training.synchronised import synchronise
from etude.training.watch import watched


class WorkersConfig(Section):
    """How many processes train one student."""

    workers: int = Field(1, ge=1)
    use_gpu: bool = False
    cpus_per_worker: float = Field(1, gt=0)
    max_failures: int = Field(3, ge=0, description="restarts of the worker group before giving up")


@dataclass(frozen=True)
class Run:
    """One student to be trained: how, where its checkpoints lie, and its run in MLflow."""

    settings: Experiment
    folder: Files
    run_id: str

    @property
    def best(self) -> str:
        """Its best checkpoint, once it has learned anything."""
        return self.folder.address("best.pt")


def train_on_workers(runs: Sequence[Run], workers: WorkersConfig, tracking: Tracking) -> None:
    """Train every run to its end. Needs a Ray session and prepared data.

    The same folders resume. Raises UserError if the cluster is too small or a batch cannot be shared.
    """
    for run in runs:
        if run.settings.training.batch_size % workers.workers:
            raise UserError(
                f"training.batch_size {run.settings.training.batch_size} cannot be shared by "
                f"{workers.workers} workers: choose a multiple"
            )
    cpus, needed = ray.cluster_resources().get("CPU", 0), workers.workers * workers.cpus_per_worker
    if cpus < needed:
        raise UserError(
            f"{workers.workers} workers need {needed:g} CPUs, the cluster has {cpus:g}: "
            "lower workers.workers or workers.cpus_per_worker"
        )
    filesystem, path = runs[0].folder.arrow()
    resources = {"CPU": workers.cpus_per_worker} | ({"GPU": 1} if workers.use_gpu else {})
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "runs": list(runs),
            "tracking_uri": tracking.uri,
            "experiment": tracking.experiment,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.workers, use_gpu=workers.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=workers.max_failures),
        ),
    )  # fmt: skip
    try:
        with ExitStack() as watching:
            for run in runs:
                of = run.settings
                epochs = of.training.most_epochs
                watching.enter_context(watched(run.folder, of.published_as, epochs, of.judged_by, say))
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"training failed ({reason}): what was done is in {runs[0].folder.parent}") from error


def _worker(config: dict[str, Any]) -> None:
    """One worker: the plain loop over every run, with this rank's share of every batch."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    worker = Worker(rank, world_size, device, prepare_model if world_size > 1 else lambda module: module)
    tracking = Tracking(config["tracking_uri"], config["experiment"]) if rank == 0 else None
    for run in config["runs"]:
        _train(run, worker, tracking)


def _train(run: Run, worker: Worker, tracking: Tracking | None) -> None:
    settings, study = run.settings, run.settings.open()

    def report(metrics: Mapping[str, float], checkpoint: str) -> None:
        if tracking is not None:
            numbers = {name: float(value) for name, value in metrics.items() if name != "epoch"}
            tracking.log_metrics(run.run_id, numbers, step=int(metrics["epoch"]))
            if settings.tracking.tensorboard:
                folder = settings.tracking.tensorboard / run.folder.name
                write_scalars(folder, numbers, int(metrics["epoch"]))
        # The checkpoint is in shared storage already; Ray is told only that this epoch is done everywhere.
        ray.train.report(dict(metrics))

    begun = load_latest(run.folder)
    system = study.system(settings.seed, begun and begun["model"])
    assert isinstance(system, nn.Module)
    synchronise(system)  # so that the number of workers changes no loss
    train(
        system,
        study,
        settings.training,
        seed=settings.seed,
        folder=run.folder,
        report=report,
        identity=study.identity(),
        configuration=configuration(settings),
        worker=worker,
    )
