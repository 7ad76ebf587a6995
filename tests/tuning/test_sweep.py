"""Sweeps on real music through real Ray and MLflow: failures stay local, nothing is done twice."""

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from etude.config import load
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.tracking.mlflow import Tracking
from etude.training.loop import SCORE
from etude.tuning.journal import Journal
from etude.tuning.report import sweep_report, trials_table
from etude.tuning.space import Distribution
from etude.tuning.sweep import finish, run_sweep
from etude.tuning.trial import SweepConfig
from etude.workflow import TuneSettings

SPACE = {
    "student.name": Distribution(choice=["convnet"]),
    "student.width": Distribution(choice=[0.1, 0.2]),
    "training.learning_rate": Distribution(loguniform=(1e-3, 5e-3)),
}


class TuneAudio(TuneSettings, AudioExperiment):
    """As the job has it."""


def experiment(demo: AudioExperiment) -> AudioExperiment:
    small = {"training": {"epochs": 2, "batch_size": 4}, "sampling": {"segments_per_track": 1}}
    return AudioExperiment(**demo.model_dump() | small)


def sweep_of(name: str, space: dict[str, Distribution], trials: int = 3) -> SweepConfig:
    return SweepConfig(name=name, space=space, trials=trials, max_failures=0)


def said(lines: list[str]):  # type: ignore[no-untyped-def]
    return lines.append


@pytest.mark.slow
def test_a_sweep_ends_with_runs_table_plot_and_addresses(demo: AudioExperiment, mlflow_uri: str) -> None:
    tracking = Tracking(mlflow_uri, "sweep-tests")
    lines: list[str] = []
    result = run_sweep(
        experiment(demo), sweep_of("whole", SPACE), tracking, {"git_commit": "abc"}, said(lines)
    )
    assert len(result.trials) == 3
    assert result.winner.score == max(trial.score for trial in result.trials if trial.score is not None)
    assert Path(result.checkpoint(result.winner)).exists()
    assert sum("ended)" in line for line in lines) == 3
    client = MlflowClient(mlflow_uri)
    for trial in result.trials:
        run = client.get_run(result.trial_runs[trial.number])
        assert run.data.tags["mlflow.parentRunId"] == result.run_id
        assert run.data.tags["git_commit"] == "abc"
        assert run.data.params["student.width"] == str(trial.overrides["student.width"])
        assert run.info.status in ("FINISHED", "KILLED")
        history = client.get_metric_history(run.info.run_id, SCORE)
        assert [point.step for point in history] == list(range(1, trial.epochs + 1))
    text = sweep_report(result, tracking)
    assert trials_table(result) in text
    assert "/#/compare-runs?runs=" in text
    assert result.folder.version("sweep.png")[1] > 10_000
    assert {file.path for file in client.list_artifacts(result.run_id)} == {"sweep.png", "sweep.yaml"}
    assert b"trials:" in (result.folder.read("sweep.yaml") or b"")


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_sweep(demo: AudioExperiment, mlflow_uri: str) -> None:
    space = {**SPACE, "training.learning_rate": Distribution(choice=[2e-3, 1e30])}
    sweep = sweep_of("failing", space, trials=5)
    result = run_sweep(experiment(demo), sweep, Tracking(mlflow_uri, "sweep-tests"), {}, lambda line: None)
    by_rate = {
        (trial.overrides["training.learning_rate"] > 1, trial.ended == "failed") for trial in result.trials
    }
    assert by_rate == {(True, True), (False, False)}
    assert "the loss became" in next(trial.reason for trial in result.trials if trial.ended == "failed")
    assert result.winner.ended != "failed"


def test_a_file_that_a_trial_lacks_is_told_before_any_trains(demo: AudioExperiment, mlflow_uri: str) -> None:
    cases = {"plain": {}, "fused": {"student.specialist": str(demo.home / "none.pt")}}
    sweep = SweepConfig(name="fused", cases=cases)
    with pytest.raises(UserError, match=r"cannot read student\.specialist .*none\.pt"):
        run_sweep(experiment(demo), sweep, Tracking(mlflow_uri, "sweep-tests"), {}, print)
    (folder,) = (demo.home / "sweeps").glob("fused-*")
    assert not (folder / "journal.jsonl").exists()


def test_what_optuna_proposes_and_no_trial_can_have_ends_the_sweep(
    demo: AudioExperiment, mlflow_uri: str
) -> None:
    """Seed 1: drawn at random, the first is 0.002 and fits; Optuna begins with -1."""
    space = {"training.learning_rate": Distribution(choice=[1e-3, 2e-3, -1.0])}
    sweep = SweepConfig(name="proposed", space=space, trials=1, search="optuna")
    settings = experiment(demo).model_copy(update={"seed": 1})
    with pytest.raises(UserError, match=r"search space draws .*-1.0.*training.learning_rate"):
        run_sweep(settings, sweep, Tracking(mlflow_uri, "sweep-tests"), {}, print)
    (folder,) = (demo.home / "sweeps").glob("proposed-*")
    assert not (folder / "journal.jsonl").exists()


@pytest.mark.slow
def test_a_sweep_in_which_all_fail_says_why(demo: AudioExperiment, mlflow_uri: str) -> None:
    space = {**SPACE, "training.learning_rate": Distribution(choice=[1e30])}
    with pytest.raises(UserError, match=r"every trial of .* failed .*the loss became"):
        run_sweep(experiment(demo), sweep_of("hopeless", space, 1), Tracking(mlflow_uri, "t"), {}, print)
    # It is over: the same command does not repeat the same failure without trying anything.
    (folder,) = (demo.home / "sweeps").glob("hopeless-*")
    assert json.loads((folder / "result.json").read_text()) == {"winner": None}


@pytest.mark.slow
def test_an_unfinished_sweep_goes_on_and_a_finished_one_does_not(
    demo: AudioExperiment, mlflow_uri: str
) -> None:
    """As after a kill: one trial has ended, one was under way with an epoch its driver never heard of."""
    tracking = Tracking(mlflow_uri, "sweep-tests")
    settings, sweep = experiment(demo), sweep_of("resumed", SPACE)
    whole = run_sweep(settings, sweep, tracking, {}, lambda line: None)
    path = Path(whole.folder.address("journal.jsonl"))
    before = [json.loads(line) for line in path.read_text().splitlines()]
    cut_trial = before[-1]["trial"]
    kept = [
        entry for entry in before
        if entry["trial"] != cut_trial or "overrides" in entry or entry.get("epoch") == 1
    ]  # fmt: skip
    path.write_text("".join(json.dumps(entry) + "\n" for entry in kept))

    with pytest.raises(UserError, match="another run is at work on resumed"):
        run_sweep(settings, sweep, tracking, {}, lambda line: None)
    whole.lock.release()  # as the end of a process does
    again = run_sweep(settings, sweep, tracking, {}, lambda line: None)
    assert again.continued
    assert again.folder == whole.folder
    assert again.trial_runs == whole.trial_runs
    epochs = [(entry.trial, entry.epoch) for entry in Journal(path).entries if entry.score is not None]
    assert len(epochs) == len(set(epochs))
    scores = {trial.number: trial.score for trial in whole.trials}
    assert {trial.number: trial.score for trial in again.trials} == scores

    finish(again, {"winner": again.winner.number})
    new = run_sweep(settings, sweep, tracking, {}, lambda line: None)
    assert not new.continued
    assert new.folder != whole.folder
    assert [t.overrides for t in sorted(new.trials, key=lambda t: t.number)] != [
        t.overrides for t in sorted(whole.trials, key=lambda t: t.number)
    ]


def test_the_command_line_reaches_the_space(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("sweep: {space: {student.width: {choice: [0.1]}}, trials: 2, asha: {grace_epochs: 2}}")
    settings = load(TuneAudio, ["--config", str(file), "--sweep.trials", "7"])
    assert settings.sweep.trials == 7
    assert settings.sweep.asha.grace_epochs == 2
