"""One trial of a sweep: its configuration, its training, its cost."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, StringConstraints, ValidationError, model_validator
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from etude.config import Section, explain, with_overrides
from etude.errors import UserError
from etude.experiments.base import E, Experiment
from etude.storage.files import Files
from etude.training.epoch import Worker
from etude.training.ray_train import WorkersConfig, check_shares, fit
from etude.training.run import Run, train_run
from etude.tuning.population import PopulationConfig
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
    search: Literal["random", "optuna"] = Field(
        "random", description="optuna: later trials are drawn where earlier ones did well"
    )
    asha: AshaConfig = AshaConfig()
    population: PopulationConfig | None = Field(
        None, description="instead of ASHA: trials learn side by side, the worse taking over from the better"
    )
    concurrent: int | None = Field(
        None, ge=1, description="most trials at a time; none: as many as nodes that are or may come hold"
    )
    workers: int = Field(1, ge=1, description="processes that train one trial together, through Ray Train")
    cpus_per_trial: float = Field(1, gt=0, description="of each of its workers")
    gpus_per_trial: float = Field(
        0, ge=0, description="of each of its workers; 0.5: two trials of one worker share a GPU"
    )
    max_failures: int = Field(1, ge=0, description="restarts of a trial that fails, from its checkpoint")

    @model_validator(mode="after")
    def _whole_gpus(self) -> "SweepConfig":
        if self.workers > 1 and self.gpus_per_trial not in (0, 1):
            raise ValueError(
                f"gpus_per_trial {self.gpus_per_trial:g}: several workers need one each, or none"
            )
        return self

    @property
    def group(self) -> WorkersConfig:
        """The workers of one trial."""
        return WorkersConfig(
            workers=self.workers,
            use_gpu=self.gpus_per_trial > 0,
            cpus_per_worker=self.cpus_per_trial,
            max_failures=self.max_failures,
        )


def trial_settings(settings: E, overrides: Mapping[str, Any]) -> E:
    """The configuration of one trial. Raises UserError if a drawn value does not fit."""
    try:
        return type(settings)(**with_overrides(settings.model_dump(), overrides))
    except ValidationError as error:
        reason = explain(type(settings), error)
        raise UserError(f"the search space draws {dict(overrides)}: {reason}") from None


def trial_folder(sweep: Files, number: int) -> Files:
    """Where a trial keeps its checkpoints."""
    return sweep.at(f"trials/{number:03d}")


def run_trial(config: dict[str, Any], base: Experiment, sweep: Files, until: int | None = None) -> None:
    """Train one trial inside Tune's process, up to epoch `until` if given, reporting every epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report = lambda metrics, checkpoint: tune.report(dict(metrics))  # noqa: E731
    train_run(_run(config, base, sweep, until), Worker(device=device), report)


def run_trial_on_workers(
    config: dict[str, Any],
    base: Experiment,
    sweep: Files,
    workers: WorkersConfig,
    until: int | None = None,
) -> None:
    """The same with several workers, which Ray Train starts and Tune's process waits for."""
    run = _run(config, base, sweep, until)
    check_shares(run.settings.training, workers)
    fit([run], workers, None, [TuneReportCallback()])


def _run(config: dict[str, Any], base: Experiment, sweep: Files, until: int | None) -> Run:
    """Epochs that its checkpoint has but the journal has not (the driver was killed between the two) are
    reported first, so that every epoch is heard once. The last that was heard is told again: what is to
    become of the trial may not have been decided yet.
    """
    settings, folder = trial_settings(base, config["overrides"]), trial_folder(sweep, config["trial"])
    reported = config["reported"]
    return Run(
        f"{sweep.name}/{folder.name}", settings, folder,
        replay_after=max(0, reported - 1), until=until, shown=reported,
    )  # fmt: skip
