"""Clusters of several simulated nodes, and runs on them that something happens to."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import TypeVar

import psutil
import pytest

from tests.support.light import Light
from tests.support.nodes import Nodes, end_drivers, nodes

T = TypeVar("T")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Nodes]:
    """Two nodes of one CPU each; no test takes one away."""
    with nodes({"num_cpus": 1}, {"num_cpus": 1}) as running:
        yield running


@pytest.fixture
def light(tmp_path: Path) -> Light:
    """Tracks that take some ten seconds through two nodes, most of it for a teacher that is slow."""
    return Light(str(tmp_path / "store"), str(tmp_path / "notes"), tracks=300, latency_s=0.1, listen_s=0.06)


@pytest.fixture(autouse=True)
def drivers() -> Iterator[None]:
    """No driver outlives its test."""
    yield
    end_drivers()


def wait_for(what: Callable[[], T], driver: "Popen[str]", within_s: float = 400) -> T:
    """What `what` gives as soon as it is true; fails if the driver has ended before."""
    end = time.monotonic() + within_s
    while not (found := what()):
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < end, f"nothing within {within_s:.0f} s"
        time.sleep(0.05)
    return found


def committed(light: Light) -> int:
    """Shards of features that count."""
    return len([*Path(light.store).glob("commits/features/*/*.json")])


def noted(light: Light, step: str) -> dict[int, str]:
    """Processes that worked at a step, with their node."""
    names = (path.name.split("-") for path in Path(light.notes).glob(f"{step}-*"))
    return {int(process): node for _, process, node in names}


def alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
