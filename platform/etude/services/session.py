"""How a job finds its Ray cluster and its MLflow server."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import ray

from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.services import daemon
from etude.services.head import find_head, require_head
from etude.services.local import DASHBOARD, PLACES, mlflow_server, ray_environment
from etude.tracking.mlflow import Tracking


def authenticate(home: Path) -> None:
    """Outside a submitted job, set authentication by this home's token explicitly.

    Ray reads that when it is imported, so the process starts itself anew with it set: hold nothing yet.
    """
    if "RAY_ADDRESS" not in os.environ and "RAY_AUTH_MODE" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **ray_environment(home)})


def connect(home: Path) -> str:
    """Join the cluster this job was submitted to, this home's head, or one that ends with the process.

    Authenticates first. Returns the dashboard's address. Raises UserError within seconds if the head that
    RAY_ADDRESS names cannot be used.
    """
    authenticate(home)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if "RAY_ADDRESS" not in os.environ:
        head = daemon.find(home / "services", "ray")
        if head:
            options["address"] = f"127.0.0.1:{head.ports[0]}"
        else:
            # Where a trial with workers was stopped, an actor of Ray's asks the dashboard whether to free
            # their places, and would ask that of the machine's newest cluster.
            port = daemon.free_port()
            os.environ[DASHBOARD] = f"http://127.0.0.1:{port}"
            options |= {
                "address": "local", "resources": PLACES,
                "include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": port,
            }  # fmt: skip
    elif (address := os.environ["RAY_ADDRESS"]) != "local" and not ray.is_initialized():
        require_head(find_head() if address == "auto" else address)
    try:
        return f"http://{ray.init(ignore_reinit_error=True, **options).dashboard_url}"
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise UserError(
            f"{' '.join(str(error).split())}: take the cluster's versions here, or ours there"
        ) from None


def open_tracking(settings: Experiment) -> Tracking:
    """The system's experiment on the server that the settings or MLFLOW_TRACKING_URI name, or this home's."""
    uri = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        uri = mlflow_server(settings.home, daemon.free_port())
    return Tracking(uri, f"etude-{settings.system}")
