"""Simulated nodes end with whoever started them, and all that they had started, too."""

import psutil
import pytest

from tests.cluster.conftest import alive
from tests.support.nodes import nodes


@pytest.mark.slow
def test_a_cluster_leaves_no_process() -> None:
    with nodes({"num_cpus": 1}, {"num_cpus": 1}) as two:
        of_each = [psutil.Process(node.raylet).children(recursive=True) for node in two.nodes]
        assert all(of_each)
    assert not [process for of_one in of_each for process in of_one if alive(process.pid)]
