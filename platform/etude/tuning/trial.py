"""One trial of a sweep: its configuration, its training, its cost."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from ray import tune

from etude.config import Section, explain, with_overrides
from etude.errors import UserError
from etude.experiment import Experiment, build_system, identity, load_teacher, open_data
from etude.students import build_student
from etude.students.cost import Cost, count
from etude.training.loop import train
from etude.tuning.scheduler import AshaConfig
from etude.tuning.space import Space


class SweepConfig(Section):
    """What is searched, how long, and with what."""

    name: str = Field("audio", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    space: Space = Field(default_factory=dict, description="dotted keys to distributions")
    trials: int = Field(12, ge=1)
    asha: AshaConfig = AshaConfig()
    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float = Field(0, ge=0)
    max_failures: int = Field(1, ge=0, description="restarts of a trial that fails, from its checkpoint")


class SweepExperiment(Experiment):
    """An experiment of many trials."""

    sweep: SweepConfig = SweepConfig()


def trial_settings(settings: SweepExperiment, overrides: Mapping[str, Any]) -> Experiment:
    """The configuration of one trial. Raises UserError if a drawn value does not fit."""
    base = settings.model_dump(include=set(Experiment.model_fields))
    try:
        return Experiment(**with_overrides(base, overrides))
    except ValidationError as error:
        raise UserError(f"the search space draws {dict(overrides)}: {explain(Experiment, error)}") from None


def student_cost(settings: Experiment, dim: int) -> Cost:
    """Parameters and MACs of a configuration's student for one segment."""
    student = build_student(settings.student, dim, normalize=False)
    return count(student, settings.recipe.n_mels, settings.recipe.n_frames)


def run_trial(config: dict[str, Any], work: Mapping[int, tuple[Experiment, Path, int]]) -> None:
    """Train one trial inside Tune's process, reporting every epoch.

    Epochs that its checkpoint has but the journal has not (the driver was killed between the two) are
    reported first, so that ASHA sees every epoch once.
    """
    number = config["trial"]
    settings, folder, reported = work[number]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    teacher = load_teacher(settings)
    splits = open_data(settings, teacher)
    seed = settings.seed * 1000 + number
    system = build_system(settings, teacher, seed)

    def report(metrics: Mapping[str, float], checkpoint: Path) -> None:
        tune.report(dict(metrics))

    train(
        system, splits, settings.training, seed=seed, folder=folder, report=report,
        identity=identity(settings, teacher, splits), device=device, replay_after=reported,
    )  # fmt: skip
