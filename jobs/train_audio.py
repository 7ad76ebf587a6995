"""Train one student through Ray Train, export and register it.

    python jobs/train_audio.py --config ~/.local/share/etude/winner.yaml --training.epochs 60
    python jobs/train_audio.py --student.width 0.6 --run wide

The library must be prepared (jobs/prepare_audio.py, or the sweep did it). A run that was cut off resumes
under the same name; `--run` names another. All keys: --help.
"""

import sys

from pydantic import Field

from etude.cli import guarded, say
from etude.config import load
from etude.experiment import Experiment, fingerprint, load_teacher, open_data, pinned
from etude.export.publish import publish
from etude.services.session import connect, open_tracking
from etude.summary import export_folder, student_summary
from etude.tracking.git import git_commit
from etude.training.ray_train import WorkersConfig, train_on_workers


class TrainAudio(Experiment):
    """Train one student. Files: --config FILE.yaml. Environment: ETUDE_STUDENT__WIDTH=0.6."""

    plan: bool = False
    run: str = Field(
        "train", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="names the run; the same resumes"
    )
    workers: WorkersConfig = WorkersConfig()


def main(argv: list[str]) -> int:
    settings = pinned(load(TrainAudio, argv))
    splits = open_data(settings, load_teacher(settings))
    if settings.plan:
        say(
            f"{len(splits.train)} training tracks, {splits.train.n_segments} segments, "
            f"{settings.training.epochs} epochs"
        )
        return 0
    dashboard = connect(settings.home)
    tracking = open_tracking(settings, "etude-student-clap")
    name = f"{settings.run}-{fingerprint(settings, splits)}"
    folder = settings.home / "runs" / name
    tags = {"git_commit": git_commit(), "etude.kind": "train"}
    run_id = tracking.run(name, name, tags=tags)
    tracking.log_params(run_id, settings.model_dump())
    say(f"run {name}: {tracking.run_url(run_id)}\nRay dashboard: {dashboard}")
    best = train_on_workers(settings, settings.workers, folder, tracking.uri, "etude-student-clap", run_id)
    published = publish(settings, splits, best, tracking, run_id, export_folder(settings.home, name), tags)
    tracking.end(run_id, "FINISHED")
    say(student_summary(published))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
