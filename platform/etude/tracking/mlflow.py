"""A thin layer over one MLflow server: runs found again by tag, one batch of metrics an epoch."""

import hashlib
import os
import socket
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")  # a server that is gone is noticed in seconds
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import numpy as np
import onnx
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from etude.config import mask
from etude.errors import UserError

CHAMPION = "champion"
EXPORT = "export"  # folder of a run for the files that were exported with a model
_PARAMS_A_BATCH = 100  # MLflow's own limit


@dataclass(frozen=True)
class ModelVersion:
    """A registered model."""

    name: str
    version: str
    uri: str


class Tracking:
    """One experiment on one server."""

    def __init__(self, uri: str, experiment: str) -> None:
        """Raises UserError if the server does not answer."""
        self.uri = uri.rstrip("/")
        self.experiment = experiment
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        try:
            _knock(self.uri)
            found = self._client.get_experiment_by_name(experiment)
            self.experiment_id: str = (
                found.experiment_id if found else self._client.create_experiment(experiment)
            )
        except (MlflowException, OSError) as error:
            reason = str(mask(str(error).splitlines()[0]))[:200]
            raise UserError(
                f"no MLflow server answers at {mask(uri)} ({reason}): start it with `make up`, "
                "or set tracking.uri"
            ) from error

    def run(
        self, key: str, name: str, *, parent: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """The id of the run tagged with `key`: the one that is there, or a new one."""
        found = self._client.search_runs([self.experiment_id], f"tags.`etude.key` = '{key}'", max_results=1)
        if found:
            run_id: str = found[0].info.run_id
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        all_tags = {"etude.key": key, **(tags or {})}
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        created: str = self._client.create_run(self.experiment_id, run_name=name, tags=all_tags).info.run_id
        return created

    def log_params(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Log a nested configuration with dotted keys; what was logged before stays."""
        known = set(self._client.get_run(run_id).data.params)
        flat = {k: str(v)[:6000] for k, v in _flatten(mask(config)).items() if k not in known}
        params = [Param(key, value) for key, value in flat.items()]
        for start in range(0, len(params), _PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_A_BATCH])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        """All metrics of an epoch in one request."""
        now = int(mlflow.utils.time.get_current_time_millis())
        self._client.log_batch(
            run_id, metrics=[Metric(name, float(value), now, step) for name, value in metrics.items()]
        )

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Keep a file with a run."""
        self._client.log_artifact(run_id, str(path), folder)

    def end(self, run_id: str, status: str) -> None:
        """Set a final status: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status)

    # -- models ---------------------------------------------------------------------------------------

    def register(self, run_id: str, path: Path, name: str, tags: Mapping[str, str]) -> ModelVersion:
        """Log an ONNX file with its signature and register it as a version of `name`.

        The same file from the same run is the version that is there, so that a job that was cut off between
        registering and its end registers once.
        """
        tags = {**tags, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for there in self._client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
            if there.tags.get("sha256") == tags["sha256"]:
                return ModelVersion(name, str(there.version), f"models:/{name}/{there.version}")
        model = onnx.load(path)
        mlflow.set_tracking_uri(self.uri)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.onnx.log_model(
                model,
                name="model",
                signature=signature(model),
                save_as_external_data=False,
                pip_requirements=["onnx", "onnxruntime"],
            )
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = self._client.create_model_version(
            name, info.model_uri, run_id, tags=tags, model_id=info.model_id
        )
        return ModelVersion(name, str(made.version), f"models:/{name}/{made.version}")

    def champion(self, name: str) -> ModelVersion | None:
        """The registered model that is in use, if there is one."""
        try:
            found = self._client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise  # an outage must not crown whoever comes next
            return None
        return ModelVersion(name, str(found.version), f"models:/{name}/{found.version}")

    def download(self, model: ModelVersion, folder: Path) -> list[Path]:
        """A registered model's ONNX file, and then what it takes beside it, as it was exported."""
        mlflow.set_tracking_uri(self.uri)
        local = mlflow.artifacts.download_artifacts(artifact_uri=model.uri, dst_path=str(folder / "model"))
        run_id = self._client.get_model_version(model.name, model.version).run_id
        beside = [
            self._client.download_artifacts(run_id, file.path, str(folder))
            for file in self._client.list_artifacts(run_id, EXPORT)
            if file.path.endswith((".onnx", "tokenizer.json", ".safetensors"))
        ]
        return [next(Path(local).rglob("*.onnx")), *map(Path, beside)]

    def crown(self, model: ModelVersion) -> None:
        """Make a version the one in use."""
        self._client.set_registered_model_alias(model.name, CHAMPION, model.version)

    # -- addresses ------------------------------------------------------------------------------------

    def run_url(self, run_id: str) -> str:
        """The page of a run."""
        return f"{mask(self.uri)}/#/experiments/{self.experiment_id}/runs/{run_id}"

    def compare_url(self, run_ids: list[str]) -> str:
        """The page that compares runs."""
        runs, experiments = (
            urllib.parse.quote(str(list(ids)).replace("'", '"').replace(" ", ""))
            for ids in (run_ids, [self.experiment_id])
        )
        return f"{mask(self.uri)}/#/compare-runs?runs={runs}&experiments={experiments}"


def _knock(uri: str) -> None:
    """Raise OSError at once where nobody listens; the client itself would try for half a minute."""
    address = urllib.parse.urlsplit(uri)
    if address.scheme in ("http", "https"):
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=10).close()


def signature(model: onnx.ModelProto) -> ModelSignature:
    """Inputs and outputs of an ONNX graph by name; a symbolic axis is -1."""

    def schema(values: Any) -> Schema:
        return Schema(
            [
                TensorSpec(
                    np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
                    [
                        d.dim_value if d.HasField("dim_value") else -1
                        for d in value.type.tensor_type.shape.dim
                    ],
                    value.name,
                )
                for value in values
            ]
        )

    return ModelSignature(inputs=schema(model.graph.input), outputs=schema(model.graph.output))


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat
