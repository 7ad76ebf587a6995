"""The training loop on one or more workers through Ray Train, with failures retried.

Several students are trained by the same workers one after the other, since to start those takes a while.
All workers see the same global batches; gradients are averaged. A worker that dies is replaced and all go on
from the last checkpoint, whose losses then equal those of a run that was not disturbed.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import ray.train
from pydantic import Field, model_validator
from ray.train.torch import TorchTrainer, get_device, prepare_model

from etude.cli import say
from etude.cluster import room_for
from etude.config import Section
from etude.errors import UserError, is_disk_full
from etude.tracking.mlflow import Tracking
from etude.tracking.sender import Sender
from etude.training.checkpoint import load_latest, own_history
from etude.training.epoch import Worker
from etude.training.plan import TrainingConfig
from etude.training.run import Run, train_run
from etude.training.watch import watched

WORKER_FLUSH_S = 5.0


class WorkersConfig(Section):
    """How many processes train one student."""

    workers: int = Field(1, ge=1)
    min_workers: int | None = Field(
        None, ge=1, description="go on with fewer, down to so many, when nodes are lost, until they are back"
    )
    use_gpu: bool = False
    cpus_per_worker: float = Field(1, gt=0)
    max_failures: int = Field(3, ge=0, description="restarts of the worker group before giving up")

    @model_validator(mode="after")
    def _can_shrink(self) -> "WorkersConfig":
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is above workers {self.workers}")
        if self.min_workers is not None and not self.max_failures:
            raise ValueError("min_workers needs max_failures above 0: a lost node is a failure")
        return self

    @property
    def fewest(self) -> int:
        """Workers below which training waits."""
        return self.min_workers or self.workers

    @property
    def resources(self) -> dict[str, float]:
        """What one worker takes of its node."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": 1} if self.use_gpu else {})


def train_on_workers(runs: Sequence[Run], workers: WorkersConfig, tracking: Tracking) -> None:
    """Train every run to its end. Needs a Ray session and prepared data.

    The same folders resume. Raises UserError if the cluster is too small or a batch cannot be shared.
    """
    for run in runs:
        check_shares(run.settings.training, workers)
    room = room_for(workers.resources)
    if room < workers.fewest:
        raise UserError(
            f"{workers.fewest} workers with {workers.resources} each do not fit, the cluster has room for "
            f"{room}: lower workers.workers, workers.min_workers or workers.cpus_per_worker"
        )
    with ExitStack() as watching:
        for run in runs:
            of = run.settings
            epochs = of.training.most_epochs
            watching.enter_context(watched(run.folder, of.published_as, epochs, of.judged_by, say))
        fit(runs, workers, tracking.uri)
    for run in runs:  # all epochs, for a worker may have died before it delivered them
        if (ended := load_latest(run.folder)) and run.run_id:
            tracking.log_history(run.run_id, own_history(ended))
    tracking.deliver()


def fit(
    runs: Sequence[Run],
    workers: WorkersConfig,
    tracking_uri: str | None,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Run the workers until every run is at its end.

    Raises UserError as a worker did, or if none is left, and OSError if a disk is full.
    """
    filesystem, path = runs[0].folder.arrow()
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"runs": list(runs), "tracking_uri": tracking_uri},
        scaling_config=ray.train.ScalingConfig(
            num_workers=(workers.min_workers, workers.workers) if workers.min_workers else workers.workers,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.resources,
        ),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=workers.max_failures),
            callbacks=[NoUseTryingAgain(), *callbacks],
        ),
    )
    try:
        trainer.fit()
    except ray.train.ControllerError as error:
        reason = error.controller_failure
        if isinstance(reason, UserError) or is_disk_full(reason):
            raise reason from None
        raise _failed(runs, error) from error
    except ray.train.TrainingFailedError as error:
        raise _failed(runs, error) from error


def check_shares(training: TrainingConfig, workers: WorkersConfig) -> None:
    """Raise UserError if a batch, or a part of one, cannot be shared evenly by as many as there may be."""
    parts = f" in {training.accumulate} parts" if training.accumulate > 1 else ""
    for number in range(workers.fewest, workers.workers + 1):
        if training.batch_size // training.accumulate % number:
            raise UserError(
                f"training.batch_size {training.batch_size}{parts} cannot be shared by {number} workers: "
                "choose a multiple"
            )


class NoUseTryingAgain(ray.train.UserCallback):  # type: ignore[misc]
    """Ends a run at an error that its user has to mend; Ray would start the workers again and again."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, BaseException]) -> None:
        for error in worker_exceptions.values():
            if isinstance(error, UserError) or is_disk_full(error):
                raise error


def _failed(runs: Sequence[Run], error: ray.train.TrainingFailedError) -> UserError:
    reason = str(error).strip().splitlines()[-1]
    return UserError(f"training failed ({reason}): what was done is in {runs[0].folder.parent}")


def _worker(config: dict[str, Any]) -> None:
    """One worker: every run, with this rank's share of every batch."""
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    wrap = prepare_model if world_size > 1 else lambda module: module
    worker = Worker(rank, world_size, get_device(), wrap)
    uri = config["tracking_uri"]
    sender = Sender(uri) if uri and rank == 0 else None
    for run in config["runs"]:

        def report(metrics: Mapping[str, float], checkpoint: str, run: Run = run) -> None:
            if sender and run.run_id:
                sender.log_history(run.run_id, [metrics])
            # The checkpoint is in storage already; Ray is told only that this epoch is done everywhere.
            ray.train.report(dict(metrics))

        train_run(run, worker, report)
    if sender:
        sender.flush(WORKER_FLUSH_S)  # what is left then, the driver delivers from the checkpoints
