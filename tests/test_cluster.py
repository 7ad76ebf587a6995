"""A cluster holds as many trials as its nodes do, one by one."""

from collections.abc import Mapping

import pytest

from etude.cluster import times
from etude.errors import UserError
from etude.tuning.capacity import concurrency


@pytest.mark.parametrize(
    ("need", "nodes", "expected"),
    [
        ({"CPU": 2}, [{"CPU": 1}] * 4, 0),  # four CPUs, but none has two
        ({"CPU": 2}, [{"CPU": 3}, {"CPU": 5}], 3),
        ({"CPU": 1, "GPU": 1}, [{"CPU": 16, "GPU": 2}, {"CPU": 16}], 2),
        ({"CPU": 8, "GPU": 1}, [{"CPU": 16, "GPU": 4}], 2),
        ({"CPU": 1, "GPU": 0.5}, [{"CPU": 16, "GPU": 1}], 2),
        ({"CPU": 0.1}, [{"CPU": 1}], 10),  # 1 // 0.1 is 9
        ({"CPU": 1, "GPU": 0.0}, [{"CPU": 2}], 2),
        ({"train_driver": 1, "CPU": 0.5}, [{"train_driver": 64, "CPU": 0}, {"CPU": 8}], 0),
        ({"CPU": 1}, [], 0),
    ],
)
def test_what_is_scarcest_on_a_node_counts(
    need: Mapping[str, float], nodes: list[Mapping[str, float]], expected: int
) -> None:
    assert times(need, nodes) == expected


def test_a_trial_that_no_node_holds_is_refused_unless_nodes_may_come(ray_session: None) -> None:
    assert concurrency({"CPU": 1, "GPU": 0}, 1, None) == 2
    with pytest.raises(UserError, match=r"needs 3 CPU on one node, and the largest have 2 CPU.*concurrent"):
        concurrency({"CPU": 3}, 1, None)
    with pytest.raises(UserError, match=r"needs 1 CPU, 0.5 GPU on one node, and the largest have 2 CPU, 0 G"):
        concurrency({"CPU": 1, "GPU": 0.5}, 1, None)
    assert concurrency({"CPU": 1, "GPU": 0.5}, 1, 8) == 8


def test_workers_of_a_trial_may_be_on_several_nodes_and_are_counted(ray_session: None) -> None:
    assert concurrency({"CPU": 1}, 2, None) == 1
    with pytest.raises(UserError, match="3 times 1 CPU"):
        concurrency({"CPU": 1}, 3, None)
