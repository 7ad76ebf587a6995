"""Ray Data as the pipelines use it: quiet, never still for ever, and with errors that a user understands."""

import errno
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import OutOfDiskError, RayTaskError

from etude.cluster import may_start
from etude.errors import UserError, is_disk_full

STILL_S = 900.0  # without a block moving: longer than a node of a cloud takes to come


@dataclass(frozen=True)
class Cluster:
    """What a pipeline may count on."""

    cpus: int
    gpus: float
    grows: bool  # an autoscaler brings nodes, and others for those that are lost

    @property
    def share(self) -> float:
        """How much of a CPU the actors and tasks of a pipeline reserve that keep one busy.

        Ray waits for the actors of a lost node until they have started elsewhere. So all of them fit on half
        of the nodes, unless lost ones are replaced: there it is what they reserve that brings the nodes.
        """
        return 1.0 if self.grows else 0.5

    def pool(self, size: int, at_a_time: int = 1) -> ray.data.ActorPoolStrategy:
        """So many actors, each with so many calls at a time.

        Where nodes are still to come, perhaps fewer than allowed, the pool makes do with those that do.
        """
        if not self.grows:
            return ray.data.ActorPoolStrategy(size=size, max_concurrent_calls_per_actor=at_a_time)
        return ray.data.ActorPoolStrategy(
            min_size=1, initial_size=size, max_size=size, max_concurrent_calls_per_actor=at_a_time
        )


def cluster() -> Cluster:
    """The cluster as it is, or as it will be once an autoscaler has brought what its file allows."""
    there, groups = ray.cluster_resources(), may_start()
    # Nodes with GPUs are not brought for the sake of their CPUs.
    cpus = sum(count * node.get("CPU", 0) for count, node in groups if not node.get("GPU", 0))
    gpus = sum(count * node.get("GPU", 0) for count, node in groups)
    return Cluster(
        max(1, int(there.get("CPU", 0)), int(cpus)), max(there.get("GPU", 0.0), gpus), grows=bool(groups)
    )


def prepare_context(still_s: float = STILL_S, spread: bool = True) -> None:
    """Set how datasets made from now on are run; they fail after `still_s` seconds without any progress.

    Actors are spread over all nodes, or else packed, which keeps nodes with GPUs for those who need one.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None  # reading each actor's page tables costs 2 % of a core
    context.execution_no_progress_timeout_s = still_s
    strategy = "SPREAD" if spread else "DEFAULT"
    if context.scheduling_strategy != strategy:  # Ray warns of setting it
        context.scheduling_strategy = strategy
    context.raise_original_map_exception = True
    # Each pipeline's own progress says what there is to say, and an error what went wrong.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def rows_of(dataset: Any) -> Iterator[dict[str, Any]]:
    """Run a dataset and yield its rows as they come.

    Raises OSError where a node's disk is full, UserError as a step raised it and where the cluster no longer
    does anything.
    """
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from batch.to_pylist()
    except OutOfDiskError as error:
        raise OSError(errno.ENOSPC, "no space left where Ray keeps its objects") from error
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):  # Ray adds how often it tried
            raise UserError(str(cause).split("\nFailed to ")[0]) from error
        if is_disk_full(cause):
            raise OSError(cause.errno, f"{cause.strerror} for a node") from error
        raise
    except ExecutionTimeoutError as error:
        still_s = dataset.context.execution_no_progress_timeout_s
        raise UserError(
            f"nothing has moved in the cluster for {still_s:.0f} s: look with `ray status` whether its nodes "
            "are there and have room, and run the same command again, which goes on where this run was"
        ) from error
