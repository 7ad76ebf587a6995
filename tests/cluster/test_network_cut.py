"""Two nodes in network namespaces of their own, and the cable between them is out for half a minute."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.cluster.conftest import committed, noted, wait_for
from tests.support.light import Light, exact, outcome
from tests.support.nodes import STORE_BYTES, Nodes, nodes

CUT_S = 30
HERE, THERE = "10.77.7.1", "10.77.7.2"
CONNECT = f"""
import errno, socket
try:
    socket.create_connection(("{THERE}", 9), timeout=3)
except OSError as error:
    print("answers" if error.errno == errno.ECONNREFUSED else "silent")
"""


@contextlib.contextmanager
def namespace() -> Iterator[int]:
    """A network namespace with nothing but a loopback; gives the process that keeps it."""
    process = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout
    try:
        if not process.stdout.readline():
            pytest.skip(f"no right to make a network here: {process.communicate()[1].decode().strip()}")
        yield process.pid
    finally:
        process.communicate()


def inside(holder: int) -> tuple[str, ...]:
    return "nsenter", "--net", f"--target={holder}", "--"


def ip(holder: int, *words: str) -> None:
    subprocess.run([*inside(holder), "ip", *words], check=True, capture_output=True)


def reaches(holder: int) -> str:
    """What the other end does when it is called: "answers" or "silent"."""
    command = [*inside(holder), sys.executable, "-c", CONNECT]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def joined(head: Nodes, holder: int) -> Iterator[None]:
    """Another node, at the other end of the cable."""
    ray = str(Path(sys.executable).with_name("ray"))
    command = [
        *inside(holder), ray, "start", "--block", "--address", head.address, "--node-ip-address", THERE,
        "--num-cpus", "1", "--object-store-memory", str(STORE_BYTES), "--disable-usage-stats",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=dict(head.environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(200)


@pytest.mark.slow
def test_the_network_is_cut_for_half_a_minute(light: Light, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")  # no one else is in these networks
    light = replace(light, tracks=600, together=2)
    with namespace() as here, namespace() as there:
        ip(here, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(there))
        for holder, address in ((here, HERE), (there, THERE)):
            ip(holder, "address", "add", f"{address}/24", "dev", "cable")
            ip(holder, "link", "set", "cable", "up")
        assert reaches(here) == "answers"
        at_home = {"num_cpus": 1, "node_ip_address": HERE}
        with nodes(at_home, prefix=inside(here)) as head, joined(head, there):
            started = json.dumps(asdict(light) | {"wait_for_cpus": 2})
            driver = head.drive("tests.support.light", started)
            wait_for(lambda: committed(light) > 2 and len({*noted(light, "featurize").values()}) == 2, driver)
            ip(here, "link", "set", "cable", "down")
            before = committed(light)
            assert reaches(here) == "silent"
            time.sleep(CUT_S)
            assert reaches(here) == "silent"
            ip(here, "link", "set", "cable", "up")
            assert reaches(here) == "answers"
            assert before < light.tracks / light.shard_tracks
            came = outcome(driver, within_s=400)
    assert came.prepared + came.quarantined == came.total == light.tracks
    exact(light)
