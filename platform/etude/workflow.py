"""What jobs share: prepare a library; train one student, or search many, and publish what comes out.

class TrainAudio(TrainSettings, AudioExperiment): ...
train_and_publish(load(TrainAudio, argv), AudioExperiment, AudioRelease)
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from etude.cli import Progress, say
from etude.config import save
from etude.data.caption_plan import CaptionPlan, plan_captions
from etude.data.captions import prepare_captions
from etude.data.plan import Plan, plan
from etude.data.prepare import prepare
from etude.data.similar import similar_tracks
from etude.errors import UserError
from etude.experiments.base import Experiment, Study, TrackingConfig, fingerprint, part
from etude.experiments.captioned import CaptionedExperiment
from etude.experiments.library import LibraryExperiment, prepare_job, prepared_rows
from etude.export.publish import Published, publish
from etude.export.release import Release
from etude.licences import require_licences
from etude.services.session import authenticate, connect, open_tracking
from etude.sources.captions import OpenAICaptions
from etude.storage.files import Files
from etude.storage.lock import held
from etude.summary import caption_summary, prepare_summary, student_summary
from etude.tracking.git import git_commit
from etude.training.ray_train import WorkersConfig, train_on_workers
from etude.training.run import Run
from etude.tuning.report import sweep_report
from etude.tuning.sweep import draw, finish, run_sweep
from etude.tuning.trial import SweepConfig


class TrainSettings(Experiment):
    """What a training job can be told beyond its experiment."""

    plan: bool = False
    run: str = Field(
        "train", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="names the run; the same resumes"
    )
    workers: WorkersConfig = WorkersConfig()


class TuneSettings(Experiment):
    """What a sweep's job can be told beyond its experiment."""

    plan: bool = False
    sweep: SweepConfig = SweepConfig()


ReleaseOf = Callable[[Any], Release]


def prepare_library(settings: LibraryExperiment) -> None:
    """Prepare what is missing of a library, and say what became of it."""
    require_licences(settings.home, settings.teachers, settings.accept_licence)
    planned = plan(prepare_job(settings))  # what is wrong with a library shows before Ray has started
    _prepare(settings, planned)


def _prepare(settings: LibraryExperiment, planned: Plan) -> None:
    job = prepare_job(settings)
    connect(settings.home)
    say(prepare_summary(prepare(job, Progress("prepare"), planned), job.store))


def prepare_captioned(settings: CaptionedExperiment) -> None:
    """Prepare what is missing of a library and of its captions, and say what became of them."""
    require_licences(settings.home, settings.teachers, settings.accept_licence)
    settings = LibraryExperiment.pinned(settings)  # the tokenizer is learned from what is made here
    planned, captions = _captioning(settings)
    captions.check(settings.captions)  # before a whole library is heard
    _prepare(settings, planned)
    rows = prepared_rows(settings)
    config, similar = settings.captions, None
    if isinstance(config, OpenAICaptions) and config.similar:
        vectors = np.stack([row.track_target for row in rows])
        similar = similar_tracks([row.track.id for row in rows], vectors, config.similar)
    report = prepare_captions(
        settings.store, [row.track for row in rows], config, settings.cache, Progress("captions"),
        similar, settings.prepare.retry_quarantined,
    )  # fmt: skip
    say(caption_summary(report))


def captioning_plan(settings: CaptionedExperiment) -> str:
    """What preparing a captioned library would do, and what its captions may cost, for `--plan`."""
    settings = LibraryExperiment.pinned(settings)
    planned, captions = _captioning(settings)
    lines = [planned.describe(os.cpu_count() or 1), captions.describe()]
    try:
        captions.check(settings.captions)
    except UserError as error:
        lines.append(f"needed first: {error}")
    return "\n".join(lines)


def _captioning(settings: CaptionedExperiment) -> tuple[Plan, CaptionPlan]:
    planned = plan(prepare_job(settings))
    tracks = [track for track in planned.catalogue if track.id not in planned.quarantined]
    config, similar = settings.captions, None
    if isinstance(config, OpenAICaptions):  # which sound alike is not known yet; any are about as long
        ids = [track.id for track in tracks]
        similar = {ids[i]: ids[i + 1 : i + 1 + config.similar] for i in range(len(ids))}
    again = settings.prepare.retry_quarantined
    return planned, plan_captions(settings.store, tracks, config, similar, again)


def train_and_publish(
    settings: TrainSettings, kind: type[Experiment], release: ReleaseOf, *, learn: bool = True
) -> Published:
    """Train one student through Ray Train, export and register it. A run that was cut off resumes.

    Without `learn`, what the run has learned so far is exported; raises UserError if that is nothing.
    """
    (published,) = train_and_publish_each([settings], kind, release, learn=learn)
    return published


def train_and_publish_each(
    each: Sequence[TrainSettings], kind: type[Experiment], release: ReleaseOf, *, learn: bool = True
) -> Iterator[Published]:
    """The same for several students that differ in no more than what they learn; the workers start once."""
    experiments = [part(settings, kind).pinned() for settings in each]
    studies = [experiment.open() for experiment in experiments]
    first, workers = experiments[0], each[0].workers
    names = [f"{one.run}-{fingerprint(study)}" for one, study in zip(each, studies, strict=True)]
    folders = [first.place.at(f"runs/{name}") for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not learn and not folder.exists("best.pt"):
            raise UserError(
                f"the run {name} has learned nothing yet: train it first, or give jobs/export.py the folder "
                "of another"
            )
    authenticate(first.home)
    with ExitStack() as alone:
        for name, folder in zip(names, folders, strict=True) if learn else ():
            alone.enter_context(held(folder, f"the run {name}"))
        yield from _train_and_publish(experiments, studies, names, folders, workers, release, learn)


def _train_and_publish(
    experiments: Sequence[Experiment],
    studies: Sequence[Study],
    names: Sequence[str],
    folders: Sequence[Files],
    workers: WorkersConfig,
    release: ReleaseOf,
    learn: bool,
) -> Iterator[Published]:
    first = experiments[0]
    say(f"Ray dashboard: {connect(first.home)}")
    tracking = open_tracking(first)
    tags = {"git_commit": git_commit(), "etude.kind": "train"}
    run_ids = [
        tracking.run(folder.identity(), name, tags=tags) for folder, name in zip(folders, names, strict=True)
    ]
    for experiment, name, run_id in zip(experiments, names, run_ids, strict=True):
        tracking.log_params(run_id, experiment.model_dump())
        say(f"run {name}: {tracking.run_url(run_id)}")
    runs = list(map(Run, names, experiments, folders, run_ids))
    left = [*run_ids]
    try:
        if learn:
            train_on_workers(runs, workers, tracking)
        for run, study, run_id in zip(runs, studies, run_ids, strict=True):
            exports = export_folder(run.settings, run.name)
            published = publish(release(study), run.best, tracking, run_id, exports, tags)
            tracking.end(run_id, "FINISHED")
            left.remove(run_id)
            yield published
    except UserError:
        tracking.give_up(left)
        raise


def tune_and_publish(settings: TuneSettings, kind: type[Experiment], release: ReleaseOf) -> Published:
    """Search students, export and register the winner, keep its configuration. Continues one cut off."""
    experiment = part(settings, kind).pinned()
    dashboard = connect(settings.home)
    tracking = open_tracking(experiment)
    sweep = run_sweep(experiment, settings.sweep, tracking, {"git_commit": git_commit()}, say)
    winner = sweep.winner
    published = publish(
        release(winner.settings.open()), sweep.checkpoint(winner), tracking,
        sweep.trial_runs[winner.number], export_folder(experiment, sweep.name),
        {"git_commit": git_commit(), "sweep": sweep.name},
    )  # fmt: skip
    winners = winner_file(experiment)
    winners.parent.mkdir(exist_ok=True)
    save(winner.settings.model_copy(update={"tracking": TrackingConfig()}), winners)
    say(sweep_report(sweep, tracking))
    say(f"Ray dashboard:     {dashboard}\nthe winner's configuration: {winners}")
    finish(sweep, {"winner": winner.number, "version": published.model.version})
    return published


def tune_captioned(settings: Any, kind: type[CaptionedExperiment], release: ReleaseOf) -> None:
    """A sweep's job over a captioned library: prepare, search, publish and say how good the winner is.

    `settings` are `TuneSettings` and of `kind`. With `settings.plan` it only says what it would do.
    """
    drawn = draw(part(settings, kind), settings.sweep, (settings.seed, 0))
    if settings.plan:
        say(captioning_plan(settings))
        say(f"then {len(drawn)} trials of at most {settings.training.most_epochs} epochs")
        return
    prepare_captioned(settings)
    say(student_summary(tune_and_publish(settings, kind, release)))
    say('next: python jobs/search.py "slow piano piece in a minor key"')


def export_folder(experiment: Experiment, name: str) -> Path:
    """Where a student's files are put."""
    return experiment.home / "exports" / experiment.system / name


def winner_file(experiment: Experiment) -> Path:
    """Where the configuration of the last sweep's winner is kept."""
    return experiment.home / "winners" / f"{experiment.published_as}.yaml"
