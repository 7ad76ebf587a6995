"""Whatever is killed while a library is prepared: every track ends in one place, once."""

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.cluster.conftest import alive, committed, noted, wait_for
from tests.support.light import Light, exact, outcome
from tests.support.nodes import Nodes, nodes

DRIVER = "tests.support.light"


@pytest.mark.slow
def test_a_process_of_every_step_is_killed(cluster: Nodes, light: Light) -> None:
    """An actor that fetches, one that listens, and a worker that has written and not yet said so."""
    driver = cluster.drive(DRIVER, json.dumps(asdict(light)))
    killed = {}
    # Fetching runs ahead of the rest: once there are shards it may be over.
    for step, shards in (("fetch", 0), ("featurize", 2), ("write", 4)):
        wait_for(lambda step=step, shards=shards: noted(light, step) and committed(light) >= shards, driver)  # type: ignore[misc]
        (Path(light.notes) / f"kill-{step}").touch()
        (death,) = wait_for(lambda step=step: [*Path(light.notes).glob(f"killed-{step}-*")], driver)  # type: ignore[misc]
        killed[step] = int(death.name.split("-")[2])
    came = outcome(driver)
    for step, process in killed.items():
        assert not alive(process)
        assert process in noted(light, step)
        assert len(noted(light, step)) > 1, f"nobody took the place of the process that was killed at {step}"
    assert came.prepared + came.quarantined == came.total == light.tracks
    exact(light)


@pytest.mark.slow
def test_the_driver_is_killed(cluster: Nodes, light: Light) -> None:
    first = cluster.drive(DRIVER, json.dumps(asdict(light)))
    wait_for(lambda: committed(light) > 4, first)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    first.communicate()
    done = committed(light)
    came = outcome(cluster.drive(DRIVER, json.dumps(asdict(light))))
    assert 0 < done < came.total / light.shard_tracks
    assert came.found > 0
    assert came.found + came.prepared + came.quarantined == came.total
    exact(light)


@pytest.mark.slow
def test_a_node_is_lost(light: Light) -> None:
    light = replace(light, together=2)
    with nodes({"num_cpus": 1}, {"num_cpus": 1}) as two:
        lost = two.nodes[1]
        driver = two.drive(DRIVER, json.dumps(asdict(light)))
        wait_for(lambda: committed(light) > 2 and lost.id in {*noted(light, "featurize").values()}, driver)
        there = [process for step in ("fetch", "featurize") for process, node in noted(light, step).items()
                 if node == lost.id]  # fmt: skip
        os.kill(lost.raylet, signal.SIGKILL)
        at_death = committed(light)
        came = outcome(driver, within_s=500)
        assert not alive(lost.raylet)
        assert there
        assert not any(map(alive, there))
    assert at_death < light.tracks / light.shard_tracks
    assert came.prepared + came.quarantined == came.total == light.tracks
    exact(light)
