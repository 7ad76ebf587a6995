"""A cluster that begins with a head without CPUs and is grown by Ray's own autoscaler, on this machine.

What is a machine here is a set of processes: Ray's provider "fake_multinode" starts them where a cloud's
would start a machine. The autoscaler, the head and what is announced to it are the real ones.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from etude.services.daemon import free_port
from etude.services.local import DASHBOARD, PLACES
from tests.support.nodes import REPOSITORY, Nodes, cluster_environment

Kinds = Mapping[str, Mapping[str, Any]]
HEAD = "ray.head.default"  # the provider knows no other

COMMANDS = (
    "initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray",
)  # fmt: skip


@contextmanager
def growing(workers: Kinds, folder: Path, announced: Kinds | None = None) -> Iterator[Nodes]:
    """Start a head that grows by these kinds of machines, announced as in cluster.yaml; no node at first.

    `workers` are written as in a file for `ray up`: {"cpu": {"resources": {"CPU": 1}, "max_workers": 2}}.
    With `announced` those are told to Ray instead: a cloud may have fewer machines than one would have.
    """
    address = f"127.0.0.1:{free_port()}"
    config = folder / "autoscaler.yaml"
    config.write_text(json.dumps(autoscaler_config(workers, address)))
    with cluster_environment() as environment:
        dashboard = free_port()
        environment |= {
            "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            DASHBOARD: f"http://127.0.0.1:{dashboard}", "RAY_ADDRESS": address,
        }  # fmt: skip
        head = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=0",
                "--node-ip-address=127.0.0.1", f"--port={address.partition(':')[2]}",
                f"--resources={json.dumps(PLACES)}", "--disable-usage-stats",
                "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
                f"--object-store-memory={100_000_000}", f"--autoscaling-config={config}",
            ],
            env={name: value for name, value in environment.items() if name != "RAY_ADDRESS"},
            cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            told = folder / "announced.yaml"
            told.write_text(json.dumps(autoscaler_config(announced or workers, address)))
            _announced(told, environment, head)
            yield Nodes(address, (), environment, ())
        finally:
            _end(head)


def autoscaler_config(workers: Kinds, address: str) -> dict[str, Any]:
    """What `ray up` would leave on the head."""
    kinds = {name: {"node_config": {}, "min_workers": 0} | dict(kind) for name, kind in workers.items()}
    return {
        "cluster_name": "growing",
        "max_workers": sum(kind["max_workers"] for kind in kinds.values()),
        "upscaling_speed": 100,
        "idle_timeout_minutes": 60,
        "provider": {
            "type": "fake_multinode", "gcs_address": address, "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "auth": {}, "file_mounts": {}, "file_mounts_sync_continuously": False, "cluster_synced_files": [],
        **{f"{what}_commands": [] for what in COMMANDS},
        "head_node_type": HEAD,
        "available_node_types": kinds
        | {HEAD: {"node_config": {}, "resources": {"CPU": 0, **PLACES}, "max_workers": 0}},
    }  # fmt: skip


def _announced(config: Path, environment: Mapping[str, str], head: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 200
    while True:
        told = subprocess.run(
            [sys.executable, "-m", "etude.services.growth", str(config)], env=dict(environment),
            cwd=REPOSITORY, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode == 0:
            return
        assert head.poll() is None and time.monotonic() < end, told.stderr
        time.sleep(1)


def _end(head: "subprocess.Popen[str]") -> None:
    """End the head and the nodes that its autoscaler started, and nothing else."""
    started = [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]
    for process in started:
        if process.is_running():
            process.kill()
    psutil.wait_procs(started, timeout=20)
    head.communicate()
