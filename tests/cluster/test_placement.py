"""Who works where: every node takes part, and GPUs are kept for those who need them."""

import json
from dataclasses import asdict, replace

import pytest

from tests.cluster.conftest import noted
from tests.support.light import Light, exact, outcome
from tests.support.nodes import Nodes, nodes

DRIVER = "tests.support.light"


@pytest.mark.slow
def test_every_node_takes_part(cluster: Nodes, light: Light) -> None:
    """A smaller run of benchmarks/scale.py, without its figures."""
    many = replace(light, tracks=1000, latency_s=0.02, listen_s=0, together=2)
    came = outcome(cluster.drive(DRIVER, json.dumps(asdict(many))))
    assert came.prepared + came.quarantined == came.total == 1000
    exact(many)
    for step in ("fetch", "featurize"):
        assert sorted(noted(light, step).values()) == sorted(node.id for node in cluster.nodes)


@pytest.mark.slow
def test_teachers_go_to_the_gpus_and_nothing_else_does(light: Light) -> None:
    """The GPUs are simulated: nodes say that they have them, and the teacher works on the CPU."""
    with nodes({"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1}, {"num_cpus": 1, "num_gpus": 1}) as three:
        on_gpus = replace(light, tracks=200, latency_s=0.05, listen_s=0.05, gpus_per_actor=1, together=2)
        outcome(three.drive(DRIVER, json.dumps(asdict(on_gpus))))
        head, *with_gpu = (node.id for node in three.nodes)
        assert sorted(noted(light, "featurize").values()) == sorted(with_gpu)
        assert {*noted(light, "fetch").values()} == {head}
        assert {*noted(light, "write").values()} == {head}
    exact(on_gpus)
