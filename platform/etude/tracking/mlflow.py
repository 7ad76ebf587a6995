"""A thin layer over one MLflow server: runs found again by tag, one batch of metrics an epoch."""

import hashlib
import logging
import math
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import mlflow
import numpy as np
import onnx
from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from etude.config import mask
from etude.errors import UserError
from etude.tracking.sender import (
    AGAIN,
    REFUSALS,
    Sender,
    patiently,
    reason,
    refused,
    send_params,
)

CHAMPION = "champion"
EXPORT = "export"  # folder of a run for the files that were exported with a model
PATIENCE_S = 300.0  # for a server that is away when it is needed
P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelVersion:
    """A registered model."""

    name: str
    version: str
    uri: str


def patient(
    method: Callable[Concatenate["Tracking", P], R],
) -> Callable[Concatenate["Tracking", P], R]:
    """A method that is called again while the server is away. Raises UserError after PATIENCE_S."""

    @wraps(method)
    def insist(tracking: "Tracking", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return patiently(lambda: method(tracking, *args, **kwargs), tracking.uri, tracking.patience_s)

    return insist


class Tracking:
    """One experiment on one server. What may wait goes through `sender`; the methods wait for an answer."""

    def __init__(self, uri: str, experiment: str, patience_s: float = PATIENCE_S) -> None:
        """Raises UserError if the server does not answer, or asks who this is."""
        self.uri = uri.rstrip("/")
        self.experiment = experiment
        self.patience_s = patience_s
        self.sender = Sender(self.uri)
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        try:
            _knock(self.uri)
            self.experiment_id = self._experiment_id()
        except MlflowException as error:
            if error.get_http_status_code() in REFUSALS:
                raise refused(self.uri) from error
            raise UserError(
                f"no MLflow server answers at {mask(uri)} ({reason(error)}): start it with `make up`, "
                "or set tracking.uri"
            ) from error

    def _experiment_id(self) -> str:
        """The experiment that is there, also if another process makes it at this moment, or a new one."""
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._client.get_experiment_by_name(self.experiment)
        return str(found.experiment_id)

    def run(
        self, key: str, name: str, *, parent: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """The id of the run tagged with `key`: the one that is there, or a new one.

        Raises UserError within seconds if the server does not answer.
        """
        return patiently(lambda: self._run(key, name, parent, tags or {}), self.uri, 0)

    def _run(self, key: str, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        found = self._oldest(key)
        if found:
            self._client.update_run(found.info.run_id, status="RUNNING")
            return str(found.info.run_id)
        all_tags = {"etude.key": key, **tags}
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        created = self._client.create_run(self.experiment_id, run_name=name, tags=all_tags)
        oldest = self._oldest(key) or created
        if oldest.info.run_id != created.info.run_id:  # another process made one at this moment
            self._client.delete_run(created.info.run_id)
        return str(oldest.info.run_id)

    def _oldest(self, key: str) -> Run | None:
        """The run with this key that all processes agree on."""
        found = self._client.search_runs([self.experiment_id], f"tags.`etude.key` = '{key}'")
        return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    @patient
    def log_params(self, run_id: str, config: Mapping[str, Any]) -> None:
        """Log a nested configuration with dotted keys; what was logged before stays."""
        send_params(self._client, run_id, config)

    @patient
    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        """Figures of a whole run in one request; what it has already is not logged again."""
        known = self._client.get_run(run_id).data.metrics
        now = int(mlflow.utils.time.get_current_time_millis())
        new = {name: float(value) for name, value in metrics.items() if not _same(known.get(name), value)}
        self._client.log_batch(run_id, metrics=[Metric(name, new[name], now, step) for name in new])

    def log_history(self, run_id: str, history: Sequence[Mapping[str, float]]) -> None:
        """Hand over figures of epochs as checkpoints hold them; what the server has is not sent again."""
        self.sender.log_history(run_id, history)

    def deliver(self) -> None:
        """Wait until all that was handed over has arrived. Raises UserError if it has not in PATIENCE_S."""
        left = self.sender.flush(min(5.0, self.patience_s))
        if self.sender.waiting:
            log.warning("%s: waiting up to %.0f s for it", left, self.patience_s)
            left = self.sender.flush(self.patience_s)
        if left:
            raise UserError(f"{left}: {AGAIN}")

    @patient
    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    @patient
    def log_file(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Keep a file with a run."""
        self._client.log_artifact(run_id, str(path), folder)

    def end(self, run_id: str, status: str) -> None:
        """Set a final status, FINISHED, FAILED or KILLED, once all that was handed over has arrived."""
        self.sender.end(run_id, status)
        self.deliver()

    def give_up(self, run_ids: Sequence[str]) -> None:
        """Mark runs as failed, where the server answers within seconds: another error is on its way."""
        for run_id in run_ids:
            self.sender.end(run_id, "FAILED")
        self.sender.flush(5.0)

    # -- models ---------------------------------------------------------------------------------------

    @patient
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

    @patient
    def champion(self, name: str) -> ModelVersion | None:
        """The registered model that is in use, if there is one."""
        try:
            found = self._client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise  # an outage must not crown whoever comes next
            return None
        return ModelVersion(name, str(found.version), f"models:/{name}/{found.version}")

    @patient
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

    @patient
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
    """Raise MlflowException within seconds where no server answers; the client itself would try for long.

    Raises UserError if the server, or a proxy before it, refuses whoever does not say who they are.
    """
    if uri.startswith(("http://", "https://")):
        # The client takes a refusal in JSON that is not MLflow's own for a failure of the server.
        answer = http_request(
            get_default_host_creds(uri), "/api/2.0/mlflow/experiments/search", "GET",
            max_retries=0, timeout=10, params={"max_results": 1},
        )  # fmt: skip
        if answer.status_code in REFUSALS:
            raise refused(uri)


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


def _same(known: float | None, value: float) -> bool:
    return known is not None and (known == value or (math.isnan(known) and math.isnan(value)))
