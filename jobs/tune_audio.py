"""The main job: prepare a library, search students on it, export and register the winner.

    ray job submit -- python jobs/tune_audio.py
    ray job submit -- python jobs/tune_audio.py --source.name folder --source.path ~/Music
    python jobs/tune_audio.py --plan

The search space is search_spaces/audio.yaml unless a --config file has a section `sweep`. All keys: --help.
An unfinished sweep with the same settings is continued; after a finished one a new one starts.
"""

import os
import sys
from pathlib import Path

from etude.cli import Progress, guarded, say
from etude.config import load, save
from etude.data.plan import plan
from etude.data.prepare import prepare
from etude.experiment import TrackingConfig, load_teacher, open_data, pinned, prepare_job
from etude.export.publish import publish
from etude.services.session import connect, open_tracking
from etude.summary import export_folder, prepare_summary, student_summary
from etude.tracking.git import git_commit
from etude.tuning.report import sweep_report
from etude.tuning.sweep import draw, finish, run_sweep
from etude.tuning.trial import SweepExperiment

SPACE = Path(__file__).resolve().parents[1] / "search_spaces" / "audio.yaml"


class TuneAudio(SweepExperiment):
    """Search students for a library. Files: --config FILE.yaml. Environment: ETUDE_SWEEP__TRIALS=20."""

    plan: bool = False


def main(argv: list[str]) -> int:
    settings = pinned(load(TuneAudio, argv, defaults={"sweep": SPACE}))
    draw(settings, (settings.seed, 0))  # a space that does not fit is told before any work
    job = prepare_job(settings)
    if settings.plan:
        say(plan(job).describe(os.cpu_count() or 1))
        say(f"then {settings.sweep.trials} trials of at most {settings.training.epochs} epochs")
        return 0
    dashboard = connect(settings.home)
    tracking = open_tracking(settings, "etude-student-clap")
    say(prepare_summary(prepare(job, Progress("prepare")), job.store))
    sweep = run_sweep(settings, tracking, {"git_commit": git_commit()}, say)
    winner = sweep.winner
    splits = open_data(winner.settings, load_teacher(winner.settings))
    published = publish(
        winner.settings, splits, sweep.checkpoint(winner), tracking, sweep.trial_runs[winner.number],
        export_folder(settings.home, sweep.name), {"git_commit": git_commit(), "sweep": sweep.name},
    )  # fmt: skip
    save(winner.settings.model_copy(update={"tracking": TrackingConfig()}), settings.home / "winner.yaml")
    say(sweep_report(sweep, tracking))
    say(student_summary(published))
    say(f"Ray dashboard:     {dashboard}\nnext: make train (the winner's configuration, longer), make stop")
    finish(sweep, {"winner": winner.number, "version": published.model.version})
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
