"""A cluster of several nodes on this machine, in a process of its own; the machines are simulated.

    python -m tests.support.nodes '[{"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1}]'

is that process: it starts a head and a node for each further entry, prints where they are, and ends them
when its input is closed, so they never outlive whoever started it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from etude.services.local import KEEP_WORKERS

REPOSITORY = Path(__file__).resolve().parents[2]
STORE_BYTES = 100_000_000
_drivers: "list[subprocess.Popen[str]]" = []


@dataclass(frozen=True)
class Node:
    """One simulated machine."""

    id: str
    raylet: int  # its process


@dataclass(frozen=True)
class Nodes:
    """A running cluster."""

    address: str
    nodes: tuple[Node, ...]  # the head first
    environment: Mapping[str, str]  # in which a driver finds it
    prefix: tuple[str, ...]  # of commands, for those who live in namespaces of their own

    def drive(self, module: str, *arguments: str) -> "subprocess.Popen[str]":
        """Start a driver, a module of this repository, in a process of its own; see `end_drivers`."""
        driver = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", module, *arguments], cwd=REPOSITORY,
            env=dict(self.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _drivers.append(driver)
        return driver


def end_drivers() -> None:
    """Kill the drivers that still run: those of a test that failed."""
    while _drivers:
        driver = _drivers.pop()
        driver.kill()
        driver.communicate()


@contextmanager
def nodes(*resources: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[Nodes]:
    """Start nodes with these resources, the head first; they are gone at the end.

    `prefix` goes before every command, such as `nsenter …` for namespaces of their own.
    The environment must hold what Ray's token authentication needs.
    """
    with cluster_environment() as environment:
        started = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.support.nodes", json.dumps(resources)],
            cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert started.stdin
        assert started.stdout
        try:
            line = started.stdout.readline()
            assert line, f"the cluster did not start: exit code {started.wait()}"
            told = json.loads(line)
            there = tuple(Node(**node) for node in told["nodes"])
            yield Nodes(told["address"], there, environment | {"RAY_ADDRESS": told["address"]}, prefix)
        finally:
            started.stdin.close()
            started.stdout.close()
            try:
                started.wait(200)
            except subprocess.TimeoutExpired:
                started.kill()
                raise


@contextmanager
def cluster_environment() -> Iterator[dict[str, str]]:
    """The environment of a cluster and its drivers, with a folder of its own for Ray, gone at the end."""
    paths = [str(REPOSITORY), str(REPOSITORY / "platform")]
    environment = {
        **os.environ, **KEEP_WORKERS, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    # Not Ray's usual folder: there it notes the newest cluster of the machine, which others would then join.
    folder = tempfile.mkdtemp(prefix="etude-ray-", dir="/tmp")  # paths of sockets must be short
    try:
        yield environment | {"RAY_TMPDIR": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(argv: Sequence[str]) -> None:
    from ray.cluster_utils import Cluster

    from etude.services.daemon import free_port

    cluster = Cluster()
    for resources in json.loads(argv[0]):
        cluster.add_node(
            **{"node_ip_address": "127.0.0.1"} | resources,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            dashboard_port=free_port(),
        )
    every = [cluster.head_node, *(node for node in cluster.list_all_nodes() if node is not cluster.head_node)]
    found = [{"id": node.node_id, "raylet": node.all_processes["raylet"][0].process.pid} for node in every]
    print(json.dumps({"address": cluster.address, "nodes": found}), flush=True)
    sys.stdin.read()
    of_all = psutil.Process().children(recursive=True)
    for node in every[1:]:
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
    for process in of_all:  # agents first tell the head, which is gone, that their node is: for long
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(of_all)


if __name__ == "__main__":
    main(sys.argv[1:])
