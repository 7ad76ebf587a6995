"""From nothing to a student with all on s3://: prepare, two epochs through Ray Train, and a sweep."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from etude.services import daemon
from etude.storage.files import Files
from etude.tracking.mlflow import Tracking
from tests.support.s3_server import BUCKET, ENVIRONMENT, address, s3_faults
from tests.tracking.test_mlflow import tiny_onnx

JOB = """
import json, sys, ray
from etude.config import load
from etude.data.prepare import prepare
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import prepare_job
from etude.tracking.mlflow import Tracking
from etude.training.ray_train import WorkersConfig, train_on_workers
from etude.training.run import Run
from etude.tuning.sweep import finish, run_sweep
from etude.tuning.trial import SweepConfig
home, storage, uri = sys.argv[1:]
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
         object_store_memory=200_000_000)
settings = load(AudioExperiment, [
    "--home", home, "--storage", storage, "--source.pieces", "6", "--source.max_duration_s", "11",
    "--prepare.shard_tracks", "2", "--student.name", "convnet", "--student.width", "0.1",
    "--student.frame_stride", "4", "--training.epochs", "2", "--training.batch_size", "2"])
report = prepare(prepare_job(settings), lambda done, total, seconds: None)
tracking = Tracking(uri, "s3-tests")
run = Run("one", settings, settings.place.at("runs/one"), tracking.run("one", "one"))
train_on_workers([run], WorkersConfig(workers=1), tracking)
sweep = SweepConfig(name="pair", cases={"slow": {"training.learning_rate": 1e-4}, "fast": {}})
said = []
result = run_sweep(settings, sweep, tracking, {}, said.append)
result.lock.release()
result = run_sweep(settings, sweep, tracking, {}, said.append)
finish(result, {})
print(json.dumps({
    "prepared": report.prepared, "best": run.best, "ended": [trial.ended for trial in result.trials],
    "winner": result.checkpoint(result.winner), "said": [line for line in said if line.startswith("sweep ")],
}))
"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_all_of_it_on_s3_through_faults(s3_port: int, mlflow_uri: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with s3_faults(s3_port) as proxy:
        storage = address(proxy.port, "whole")
        proxy.share = 0.02
        done = subprocess.run(
            [sys.executable, "-c", JOB, str(home), storage, mlflow_uri],
            env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=1500,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        assert proxy.counts.total() > 0, "a fault really happened"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["prepared"] == 6
    files = Files(address(s3_port, "whole"))
    assert {path.split("/")[0] for path in files.list("", "") if path} == {"store", "runs", "sweeps"}
    assert files.exists("runs/one/best.pt") and files.exists("runs/one/epoch-0002.pt")
    assert told["best"].startswith(f"s3://{BUCKET}/whole/runs/one/best.pt?")
    assert len(told["ended"]) == 2 and set(told["ended"]) <= {"finished", "stopped"}
    assert told["said"][1] == f"{told['said'][0]}, 2 ended before", "the journal on S3 holds all of it"
    assert files.exists(told["winner"].split("/whole/")[1].split("?")[0])
    assert {path.name for path in home.iterdir()} == {"cache"}, "nothing else lies on the node"
    assert list((home / "cache" / "shards").glob("??/*")), "shards are read through the cache"
    exported = subprocess.run(
        [sys.executable, "jobs/inspect_run.py", address(s3_port, "whole/runs")],
        env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert exported.returncode == 0, exported.stderr
    assert "whole/runs/one" in exported.stdout and len(exported.stdout.splitlines()) == 4


@pytest.mark.slow
def test_mlflow_keeps_its_artifacts_on_s3(s3_port: int, tmp_path: Path) -> None:
    """As on a cluster: clients reach the server alone, and it reaches the bucket."""
    port = daemon.free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--artifacts-destination", f"s3://{BUCKET}/mlflow", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip
    env = ENVIRONMENT | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    daemon.start(
        tmp_path, "mlflow", command, address=uri, ports=[port], ready_urls=[f"{uri}/health"], env=env
    )
    try:
        tracking = Tracking(uri, "s3-artifacts")
        run_id = tracking.run("one", "one")
        file = tiny_onnx(tmp_path / "tiny.onnx")
        model = tracking.register(run_id, file, "etude-tiny", {})
        (found,) = tracking.download(model, tmp_path / "back")
        assert found.stat().st_size > 0
    finally:
        daemon.stop(tmp_path, "mlflow")
    assert any(path.endswith(".onnx") for path in Files(address(s3_port, "mlflow")).list("", ""))
