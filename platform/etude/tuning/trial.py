"""One trial of a sweep: its configuration, its training, its cost."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field, StringConstraints, ValidationError
from ray import tune

from etude.config import Section, explain, with_overrides
from etude.errors import UserError
from etude.experiments.base import E, Experiment, configuration
from etude.storage.files import Files
from etude.tracking.tensorboard import write_scalars
from etude.training.checkpoint import load_latest
from etude.training.epoch import Worker
from etude.training.loop import train
from etude.tuning.scheduler import AshaConfig
from etude.tuning.space import Space

CaseName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$")]


class SweepConfig(Section):
    """What is searched, how long, and with what."""

    name: str = Field("sweep", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    space: Space = Field(default_factory=dict, description="dotted keys to distributions")
    cases: dict[CaseName, dict[str, Any]] = Field(
        default_factory=dict, description="instead of a space: trials by name, each with its dotted keys"
    )
    trials: int = Field(12, ge=1, description="how many are drawn from the space")
    asha: AshaConfig = AshaConfig()
    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float = Field(0, ge=0)
    max_failures: int = Field(1, ge=0, description="restarts of a trial that fails, from its checkpoint")


def trial_settings(settings: E, overrides: Mapping[str, Any]) -> E:
    """The configuration of one trial. Raises UserError if a drawn value does not fit."""
    try:
        return type(settings)(**with_overrides(settings.model_dump(), overrides))
    except ValidationError as error:
        reason = explain(type(settings), error)
        raise UserError(f"the search space draws {dict(overrides)}: {reason}") from None


def run_trial(config: dict[str, Any], work: Mapping[int, tuple[Experiment, Files, int]]) -> None:
    """Train one trial inside Tune's process, reporting every epoch.

    Epochs that its checkpoint has but the journal has not (the driver was killed between the two) are
    reported first, so that ASHA sees every epoch once.
    """
    number = config["trial"]
    settings, folder, reported = work[number]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    study = settings.open()

    def report(metrics: Mapping[str, float], checkpoint: str) -> None:
        if settings.tracking.tensorboard:
            run = settings.tracking.tensorboard / folder.parent.name / folder.name
            write_scalars(run, metrics, int(metrics["epoch"]))
        tune.report(dict(metrics))

    begun = load_latest(folder)
    train(
        study.system(settings.seed, begun and begun["model"]),
        study,
        settings.training,
        seed=settings.seed,
        folder=folder,
        report=report,
        identity=study.identity(),
        configuration=configuration(settings),
        worker=Worker(device=device),
        replay_after=reported,
    )
