"""Tell a Ray cluster how far it grows, so that work is planned for machines that are still to come.

    python -m etude.services.growth ~/ray_bootstrap_config.yaml           on the head, after `ray start`
    python -m etude.services.growth --kuberay python jobs/tune_audio.py   on KubeRay's head; then the command

Ray Data, Ray Train and `etude.cluster` read this description of the cluster from Ray's control store. An
autoscaler of Ray 2.60 acts on such a file and does not put it there: without it a cluster that grows from
nothing looks as if it were nothing. It holds until the head ends.
"""

import argparse
import operator
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.autoscaler._private.kuberay.autoscaling_config import AutoscalingConfigProducer
from ray.core.generated.autoscaler_pb2 import ClusterConfig

from etude.cli import guarded, say
from etude.errors import UserError
from etude.services.head import find_head, require_head

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # of a pod


@dataclass(frozen=True)
class Kind:
    """Machines of one kind."""

    name: str
    resources: Mapping[str, int]  # of one of them, such as {"CPU": 16}
    least: int
    most: int


def kinds(config: Mapping[str, Any]) -> list[Kind]:
    """The machines that an autoscaler's configuration allows; the head is one of its kind.

    Kinds of which it is not said what they offer are left out, and Ray Train then refuses what only they
    hold: name their `resources`. Raises UserError if this is no such configuration.
    """
    try:
        head, together = config["head_node_type"], config["max_workers"]
        every = [
            Kind(name, _whole(kind.get("resources", {})), 1, 1)
            if name == head
            else Kind(
                name,
                _whole(kind.get("resources", {})),
                operator.index(kind.get("min_workers", 0)),
                operator.index(min(kind.get("max_workers", together), together)),
            )
            for name, kind in config["available_node_types"].items()
        ]
    except (TypeError, AttributeError, KeyError, ValueError, OverflowError) as error:
        raise UserError(
            f"this configures no autoscaler ({type(error).__name__}: {error}): give what `ray start` has as "
            "--autoscaling-config, ~/ray_bootstrap_config.yaml on the head of `ray up`"
        ) from error
    return [kind for kind in every if kind.resources]


def _whole(resources: Mapping[str, float]) -> dict[str, int]:
    return {name: int(amount) for name, amount in resources.items() if amount >= 1}


def announce(every: list[Kind], address: str) -> None:
    """Write to the control store of a head how many of each kind there may be."""
    described = ClusterConfig()
    for kind in every:
        described.node_group_configs.add(
            name=kind.name, resources=kind.resources, min_count=kind.least, max_count=kind.most
        )
    GcsClient(address=address).report_cluster_config(described.SerializeToString())


def of_kuberay(cluster: str | None, account: Path = ACCOUNT) -> dict[str, Any]:
    """The configuration of the autoscaler of a KubeRay cluster, as Kubernetes has it now.

    Raises UserError outside of a pod of such a cluster, and if Kubernetes does not tell.
    """
    if not cluster or not (account / "namespace").exists():
        raise UserError("this is no pod of KubeRay: its head has RAY_CLUSTER_NAME and a service account")
    try:
        config: dict[str, Any] = AutoscalingConfigProducer(cluster, (account / "namespace").read_text())()
    except requests.RequestException as error:
        raise UserError(
            f"Kubernetes does not tell how far this cluster grows ({error}): with enableInTreeAutoscaling "
            "the operator gives the head's account the right to read its RayCluster"
        ) from error
    return config


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", type=Path, help="that ray start has as --autoscaling-config")
    what.add_argument("--kuberay", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run then")
    chosen = parser.parse_args(argv)
    if chosen.kuberay is not None and not chosen.kuberay:
        parser.error("--kuberay needs a COMMAND: what the job runs once the cluster is told")
    config = _read(chosen.file) if chosen.file else of_kuberay(os.environ.get("RAY_CLUSTER_NAME"))
    every = kinds(config)
    address = find_head()
    require_head(address)
    announce(every, address)
    say("this cluster grows to " + ", ".join(f"{kind.most} x {kind.name}" for kind in every))
    if chosen.kuberay:
        try:
            os.execvp(chosen.kuberay[0], chosen.kuberay)
        except OSError as error:
            raise UserError(f"{chosen.kuberay[0]} cannot be run ({error.strerror})") from error
    return 0


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read as YAML ({' '.join(str(error).split())})") from error


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
