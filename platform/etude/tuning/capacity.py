"""How many trials a cluster holds at a time."""

from collections.abc import Mapping

from etude.cluster import largest, room_for
from etude.errors import UserError


def concurrency(need: Mapping[str, float], workers: int, most: int | None) -> int:
    """Trials at a time, each of so many workers that need so much of one node.

    With `most`, nodes that this process knows nothing of may come, so it is taken at its word. Raises
    UserError if no trial fits.
    """
    if most is not None:
        return most
    fit = room_for(need) // workers
    if fit < 1:
        needed = ", ".join(f"{amount:g} {name}" for name, amount in need.items() if amount)
        there = ", ".join(f"{largest(name):g} {name}" for name in need)
        times = f"{workers} times " if workers > 1 else ""
        raise UserError(
            f"a trial needs {times}{needed} on one node, and the largest have {there}: lower "
            "sweep.workers, sweep.cpus_per_trial or sweep.gpus_per_trial, or, if nodes come of which Ray "
            "was not told (etude.services.growth), say how many trials they hold with sweep.concurrent"
        )
    return fit
