"""How many trials the nodes of a cluster hold at a time."""

from collections.abc import Iterable, Mapping

import ray

from etude.errors import UserError

PARTS = 10_000  # Ray counts resources in ten-thousandths; so are they divided here, exactly


def trials_at_once(need: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How often `need` fits: what is scarcest counts, and no trial takes from two nodes."""
    whole = {name: round(amount * PARTS) for name, amount in need.items() if amount}
    assert whole, "a trial needs something"
    return sum(
        min(round(node.get(name, 0) * PARTS) // amount for name, amount in whole.items()) for node in nodes
    )


def concurrency(need: Mapping[str, float], most: int | None) -> int:
    """Trials at a time on the cluster that this process has joined.

    With `most`, nodes that are not there yet may come, so it is taken at its word. Raises UserError if no
    node holds a trial.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = trials_at_once(need, nodes)
    if most is not None:
        return most
    if fit < 1:
        needed = ", ".join(f"{amount:g} {name}" for name, amount in need.items() if amount)
        largest = ", ".join(
            f"{max((node.get(name, 0) for node in nodes), default=0):g} {name}" for name in need
        )
        raise UserError(
            f"a trial needs {needed} on one node, and the largest have {largest}: lower sweep.cpus_per_trial "
            "or sweep.gpus_per_trial, or, if the cluster grows by itself, say how far with sweep.concurrent"
        )
    return fit
