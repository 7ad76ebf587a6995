"""A cluster of one head without CPUs grows by what a job needs, and jobs count with what may come."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.cluster.conftest import noted
from tests.cluster.test_elastic import WORDS
from tests.support.emotion import synthetic_experiment
from tests.support.growing import growing
from tests.support.light import Light, exact, outcome
from tests.support.mortal import Mortal
from tests.support.nodes import Nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Nodes]:
    """A head that may grow by two nodes of a CPU each."""
    with growing({"cpu": {"resources": {"CPU": 1}, "max_workers": 2}}, tmp_path) as cluster:
        yield cluster


def test_preparing_brings_all_nodes_that_may_come(empty: Nodes, light: Light) -> None:
    light = replace(light, together=2)  # no file comes before both are there
    came = outcome(empty.drive("tests.support.light", json.dumps(asdict(light))), within_s=500)
    assert came.prepared + came.quarantined == came.total == 300
    exact(light)
    assert len({*noted(light, "featurize").values()}) == 2


def test_preparing_makes_do_with_fewer_nodes_than_might_come(tmp_path: Path, light: Light) -> None:
    """As when a spot market has no more, or the account's quota is used up."""
    few, many = ({"cpu": {"resources": {"CPU": 1}, "max_workers": most}} for most in (1, 4))
    with growing(few, tmp_path, announced=many) as cluster:
        came = outcome(cluster.drive("tests.support.light", json.dumps(asdict(light))), within_s=500)
    assert came.prepared + came.quarantined == came.total == 300
    exact(light)
    assert len({*noted(light, "featurize").values()}) == 1


def test_workers_wait_for_their_nodes(empty: Nodes, tmp_path: Path, mlflow_uri: str) -> None:
    experiment = synthetic_experiment(tmp_path / "home", *WORDS, n=60)
    calm = Mortal(**experiment.model_dump(), deaths=tmp_path / "deaths")
    (tmp_path / "experiment.json").write_text(calm.model_dump_json())
    words = [str(tmp_path / "experiment.json"), str(tmp_path / "run"), mlflow_uri, "2"]
    driver = empty.drive("tests.cluster.elastic", *words)
    out, errors = driver.communicate(timeout=500)
    assert driver.returncode == 0, errors
    assert json.loads(out.splitlines()[-1])["workers"] == [2] * 5


def test_a_sweep_brings_the_nodes_of_its_trials(empty: Nodes, tmp_path: Path, mlflow_uri: str) -> None:
    driver = empty.drive("tests.tuning.sweeps_on_workers", str(tmp_path / "home"), mlflow_uri, "1")
    out, errors = driver.communicate(timeout=800)
    assert driver.returncode == 0, errors
    told = json.loads(out.splitlines()[-1])
    assert len(told["ended"]) == 3
    assert "failed" not in told["ended"].values()
