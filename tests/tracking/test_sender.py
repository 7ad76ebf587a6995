"""MLflow away, slow or refusing: nobody waits for it, and every figure arrives once."""

import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from etude.errors import UserError
from etude.tracking import sender as module
from etude.tracking.mlflow import Tracking
from etude.tracking.sender import Sender
from etude.training.checkpoint import load_latest, own_history
from etude.training.loop import train
from tests.support.audiomuse_db import audiomuse_database
from tests.support.emotion import synthetic_experiment
from tests.support.unsteady import Mode, Unsteady, unsteady, wait_until

HISTORY = [
    {"epoch": float(epoch), "at_ms": 1_700_000_000_000.0 + epoch, "train/loss": 1 / epoch, "score": epoch / 9}
    for epoch in range(1, 7)
]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def server(mlflow_uri: str) -> Iterator[Unsteady]:
    with unsteady(mlflow_uri) as proxy:
        yield proxy


@pytest.fixture
def tracking(server: Unsteady) -> Tracking:
    return Tracking(server.url, "sender-tests")


def points(uri: str, run_id: str, name: str = "train/loss") -> list[tuple[int, float, int]]:
    """What MLflow holds: step, value, time; a point that is there twice is twice in the list."""
    found = MlflowClient(uri).get_metric_history(run_id, name)
    return sorted((point.step, point.value, point.timestamp) for point in found)


def expected(history: list[dict[str, Any]], name: str = "train/loss") -> list[tuple[int, float, int]]:
    return [(int(entry["epoch"]), entry[name], int(entry["at_ms"])) for entry in history]


def test_training_goes_on_without_a_server_and_all_arrives_once(
    server: Unsteady, tracking: Tracking, mlflow_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = synthetic_experiment(tmp_path, "--model", "dynamics", "--training.epochs", "8", n=60)
    study, run_id = settings.open(), tracking.run("training", "training")

    def report(metrics: Mapping[str, float], checkpoint: Path) -> None:
        tracking.log_history(run_id, [metrics])
        if metrics["epoch"] == 2:
            assert tracking.sender.flush(30) == ""
            server.mode = "away"
        if metrics["epoch"] == 6:
            wait_until(lambda: server.counts["away"] >= 2, "the server has refused nothing")
            server.mode = "pass"

    def losses(folder: Path, report: Any) -> list[float]:
        train(
            study.system(0), study, settings.training, seed=0, folder=folder, report=report,
            identity=study.identity(),
        )  # fmt: skip
        state = load_latest(folder)
        assert state is not None
        return [entry["train/loss"] for entry in own_history(state)]

    assert losses(tmp_path / "disturbed", report) == losses(tmp_path / "whole", lambda metrics, path: None)
    tracking.deliver()
    state = load_latest(tmp_path / "disturbed")
    assert state is not None
    for name in state["history"][0].keys() - {"epoch", "at_ms"}:
        assert points(mlflow_uri, run_id, name) == expected(state["history"], name)
    assert server.counts["away"] >= 2
    assert caplog.text.count("does not answer") == caplog.text.count("answers again") == 1


def test_a_slow_server_holds_nobody_up(server: Unsteady, tracking: Tracking, mlflow_uri: str) -> None:
    run_id = tracking.run("slow", "slow")
    server.counts.clear()
    server.mode = "hold"
    for entry in HISTORY:
        tracking.log_history(run_id, [entry])
    tracking.sender.log_params(run_id, {"a": 1})
    tracking.sender.end(run_id, "KILLED", at_ms=1_800_000_000_000)
    wait_until(lambda: server.counts["hold"] == 1, "nothing was asked")
    assert server.counts.total() == 1  # all was handed over before the first answer
    assert tracking.sender.waiting == len(HISTORY) + 2
    assert "has not taken all that was to be logged (8 left, no answer yet)" in tracking.sender.flush(0)
    server.mode = "pass"
    assert tracking.sender.flush(30) == ""
    assert points(mlflow_uri, run_id) == expected(HISTORY)
    run = MlflowClient(mlflow_uri).get_run(run_id)
    assert (run.info.status, run.info.end_time) == ("KILLED", 1_800_000_000_000)
    assert run.data.params == {"a": "1"}


@pytest.mark.parametrize("mode", ["503", "429", "lost answer"])
def test_what_fails_is_sent_again_and_kept_once(
    mode: Mode, server: Unsteady, tracking: Tracking, mlflow_uri: str
) -> None:
    run_id = tracking.run(mode, mode)
    tracking.log_history(run_id, HISTORY[:1])
    assert tracking.sender.flush(30) == ""
    server.mode = mode
    tracking.log_history(run_id, HISTORY[1:3])
    wait_until(lambda: server.counts[mode] >= 2, "nothing was sent again")
    if mode == "lost answer":
        assert points(mlflow_uri, run_id) == expected(HISTORY[:2])
    server.mode = "pass"
    tracking.log_history(run_id, HISTORY[3:])
    assert tracking.sender.flush(30) == ""
    assert points(mlflow_uri, run_id) == expected(HISTORY)


def test_the_history_of_a_checkpoint_fills_gaps_and_doubles_nothing(
    tracking: Tracking, mlflow_uri: str
) -> None:
    """As when a worker with undelivered epochs was killed, and one that did an epoch again goes on."""
    run_id = tracking.run("gaps", "gaps")
    killed, resumed = Sender(tracking.uri), Sender(tracking.uri)
    for epochs in ([HISTORY[0]], [HISTORY[3]]):
        killed.log_history(run_id, epochs)
    assert killed.flush(30) == ""
    again = HISTORY[3] | {"at_ms": 1_900_000_000_000.0, "score": 0.5}
    resumed.log_history(run_id, HISTORY[:3])
    resumed.log_history(run_id, [again])
    resumed.log_history(run_id, HISTORY)
    assert resumed.flush(30) == ""
    tracking.log_history(run_id, HISTORY)
    tracking.deliver()
    for name in ("train/loss", "score"):
        assert points(mlflow_uri, run_id, name) == expected(HISTORY, name)


def test_two_that_send_the_same_at_once_double_nothing(tracking: Tracking, mlflow_uri: str) -> None:
    run_id = tracking.run("at once", "at once")
    both = [Sender(tracking.uri), Sender(tracking.uri)]
    for sender in both:
        sender.log_history(run_id, HISTORY)
    assert [sender.flush(30) for sender in both] == ["", ""]
    assert points(mlflow_uri, run_id) == expected(HISTORY)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_both_stores_keep_a_point_that_comes_twice_once(database: str, tmp_path: Path) -> None:
    """The ground on which `at least once` becomes `once`."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    if database == "postgresql":
        uri = audiomuse_database("december 2025").dsn.replace("postgresql://", "postgresql+psycopg://")
    store = SqlAlchemyStore(uri, str(tmp_path / "artifacts"))
    run_id = store.create_run(store.create_experiment("twice"), "me", 1, [], "run").info.run_id
    first = [
        Metric("loss", 0.1 + 0.2, 1_700_000_000_001, 1),
        Metric("nan", float("nan"), 1_700_000_000_001, 1),
    ]
    second = [Metric("loss", 1 / 3, 1_700_000_000_002, 2)]
    for batch in (first, second, first, [*first, *second]):
        store.log_batch(run_id, batch, [], [])
    assert sorted(point.step for point in store.get_metric_history(run_id, "loss")) == [1, 2]
    assert len(store.get_metric_history(run_id, "nan")) == 1
    store.engine.dispose()


def test_what_the_server_refuses_is_told_and_holds_up_nothing(tracking: Tracking, mlflow_uri: str) -> None:
    run_id, gone = tracking.run("refusals", "refusals"), uuid.uuid4().hex
    tracking.log_history(gone, HISTORY[:1])
    tracking.log_history(run_id, HISTORY)
    with pytest.raises(UserError, match=rf"not taken all .*\(1 left, .*{gone}.*nothing is lost"):
        tracking.deliver()
    assert points(mlflow_uri, run_id) == expected(HISTORY)


def test_a_queue_that_is_full_is_told(
    server: Unsteady, tracking: Tracking, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE", 4)
    run_id = tracking.run("full", "full")
    server.mode = "away"
    for entry in HISTORY:
        tracking.log_history(run_id, [entry])
    wait_until(lambda: server.counts["away"] > 0, "nothing was sent")
    server.mode = "pass"
    assert "(2 left, " in tracking.sender.flush(30)
    again = Tracking(server.url, "sender-tests")  # as the same command has it
    again.log_history(run_id, HISTORY)
    again.deliver()
    assert points(mlflow_uri, run_id) == expected(HISTORY)


def test_what_needs_the_server_waits_for_it_aloud(
    server: Unsteady, tracking: Tracking, mlflow_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = tracking.run("patient", "patient")
    server.mode = "away"

    def mend() -> None:
        wait_until(lambda: server.counts["away"] >= 3, "nothing was tried again")
        server.mode = "pass"

    mender = threading.Thread(target=mend)
    mender.start()
    assert tracking.champion("nobody") is None
    mender.join()
    assert caplog.text.count("waiting up to 300 s for it") == 1
    tracking.log_metrics(run_id, {"test/skill": 0.5, "none": float("nan")}, step=0)
    tracking.log_metrics(run_id, {"test/skill": 0.5, "none": float("nan"), "new": 1.0}, step=0)
    tracking.end(run_id, "FINISHED")
    assert [len(points(mlflow_uri, run_id, name)) for name in ("test/skill", "none", "new")] == [1, 1, 1]

    server.mode = "503"
    tracking.patience_s = 0.1
    with pytest.raises(UserError, match=r"does not answer .*nothing is lost, see to the server"):
        tracking.tag(run_id, {"a": "b"})
    with pytest.raises(UserError, match=r"not taken all that was to be logged \(1 left, .*nothing is lost"):
        tracking.end(run_id, "FINISHED")


@pytest.mark.parametrize("mode", ["away", "503"])
def test_a_server_that_is_away_at_the_start_is_told_at_once(
    mode: Mode, server: Unsteady, tracking: Tracking
) -> None:
    server.counts.clear()
    server.mode = mode
    with pytest.raises(UserError, match=r"no MLflow server answers at .*start it with `make up`"):
        Tracking(server.url, "another")
    with pytest.raises(UserError, match="does not answer"):
        tracking.run("new", "new")
    assert server.counts[mode] == 2


def test_an_experiment_and_a_run_that_many_make_at_once_are_one(mlflow_uri: str) -> None:
    name = f"race-{uuid.uuid4().hex}"
    start, found = threading.Barrier(6), []

    def make() -> None:
        start.wait(30)
        tracking = Tracking(mlflow_uri, name)
        tracking.run("key", "run")
        found.append(tracking)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tracking.experiment_id for tracking in found}) == 1
    assert len(found) == 6
    assert len({tracking.run("key", "run") for tracking in found}) == 1  # whatever the race left behind
