"""A run that loses a node goes on with the workers that are left, and learns the same."""

import json
from pathlib import Path

import psutil
import pytest

from etude.training.checkpoint import load_latest
from etude.training.loop import train
from tests.cluster.conftest import alive, wait_for
from tests.support.emotion import synthetic_experiment
from tests.support.mortal import Mortal
from tests.support.nodes import nodes
from tests.support.threads import one_thread

WORDS = (
    "--model",
    "dynamics",
    "--student.dropout",
    "0",
    "--training.epochs",
    "5",
    "--training.batch_size",
    "16",
    "--training.learning_rate",
    "1e-4",  # on two workers sums come in another order, and large steps make much of that
)


@pytest.mark.slow
def test_a_lost_node_changes_no_loss(tmp_path: Path, mlflow_uri: str) -> None:
    experiment = synthetic_experiment(tmp_path / "home", *WORDS, n=60)
    study = experiment.open()
    with one_thread():
        train(
            study.system(experiment.seed), study, experiment.training, seed=experiment.seed,
            folder=tmp_path / "plain", report=lambda metrics, path: None, identity=study.identity(),
        )  # fmt: skip
    plain = load_latest(tmp_path / "plain")
    assert plain is not None

    slow = Mortal(**experiment.model_dump(), deaths=tmp_path / "deaths", step_s=0.5)
    (tmp_path / "experiment.json").write_text(slow.model_dump_json())
    with nodes({"num_cpus": 1}, {"num_cpus": 1}) as two:
        words = [str(tmp_path / "experiment.json"), str(tmp_path / "run"), mlflow_uri, "1"]
        driver = two.drive("tests.cluster.elastic", *words)
        wait_for(lambda: [*(tmp_path / "run").glob("epoch-0001.pt")], driver)
        lost = psutil.Process(two.nodes[1].raylet)
        for process in (lost, *lost.children(recursive=True)):  # a machine takes all with it at once
            process.kill()
        out, errors = driver.communicate(timeout=500)
        assert driver.returncode == 0, errors
        assert not alive(two.nodes[1].raylet)
    told = json.loads(out.splitlines()[-1])
    assert told["workers"][0] == 2
    assert told["workers"][-1] == 1
    assert told["losses"] == pytest.approx([epoch["train/loss"] for epoch in plain["history"]], abs=1e-5)
