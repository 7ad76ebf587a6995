"""What a Ray cluster has room for: on the nodes that are there, and on those that it may still start."""

from collections.abc import Iterator, Mapping

import ray
from ray._private.state import state  # what an autoscaler may start stands nowhere else

Resources = Mapping[str, float]


def room_for(need: Resources) -> int:
    """How many times `need`, such as `{"CPU": 4, "GPU": 0.5}`, fits at once, each time whole on one node.

    Where a cluster grows on demand, all the nodes count that it may have. Needs a Ray session.
    """
    assert any(amount > 0 for amount in need.values()), "what needs nothing fits without end"
    now = sum(_times(need, node["Resources"]) for node in ray.nodes() if node["Alive"])
    return max(now, sum(_times(need, node) * count for node, count in _may_start()))


def _times(need: Resources, has: Resources) -> int:
    return min(int(has.get(name, 0) / amount + 1e-9) for name, amount in need.items() if amount > 0)


def _may_start() -> Iterator[tuple[Resources, int]]:
    """Resources of each kind of node that an autoscaler may start, and how many there may be of it."""
    config = state.get_cluster_config()
    for group in config.node_group_configs if config else ():
        yield dict(group.resources), group.max_count
