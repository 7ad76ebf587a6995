"""What a Ray cluster has room for: on the nodes that are there, and on those that it may still start."""

from collections.abc import Iterable, Mapping

import ray
from ray._private.state import state  # what an autoscaler may start stands nowhere else

DRIVER = "train_driver"  # a resource of the head, for processes that wait for workers elsewhere
PARTS = 10_000  # Ray counts resources in ten-thousandths; so are they divided here, exactly
Resources = Mapping[str, float]


def nodes() -> list[Resources]:
    """The nodes that are there. Needs a Ray session."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def may_start() -> list[tuple[int, Resources]]:
    """How many nodes of each kind an autoscaler keeps at most, as `etude.services.growth` told Ray.

    Empty for a cluster that does not grow. A kind without a limit is left out: it counts with those nodes
    that are there.
    """
    config = state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [(group.max_count, dict(group.resources)) for group in groups if group.max_count > 0]


def times(need: Resources, those: Iterable[Resources]) -> int:
    """How often `need`, such as `{"CPU": 4, "GPU": 0.5}`, fits on nodes, each time whole on one of them."""
    whole = {name: round(amount * PARTS) for name, amount in need.items() if amount}
    assert whole, "what needs nothing fits without end"
    return sum(
        min(round(node.get(name, 0) * PARTS) // amount for name, amount in whole.items()) for node in those
    )


def room_for(need: Resources) -> int:
    """How often `need` fits at once, also on nodes that may still come. Needs a Ray session."""
    return max(times(need, nodes()), sum(count * times(need, [node]) for count, node in may_start()))


def largest(resource: str) -> float:
    """The most of a resource on any node that is there or may come. Needs a Ray session."""
    return max((node.get(resource, 0) for node in (*nodes(), *(kind for _, kind in may_start()))), default=0)
