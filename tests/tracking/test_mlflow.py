"""Runs, metrics, models and the champion on a real server; the comparison page in a real browser."""

import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from aiohttp import web
from mlflow.tracking import MlflowClient
from onnx import TensorProto, helper
from pydantic import SecretStr

from etude.config import MASK
from etude.errors import UserError
from etude.experiments.base import Experiment
from etude.export.rebuild import SYSTEMS
from etude.services.daemon import free_port
from etude.tracking.mlflow import EXPORT, Tracking, signature
from tests.support.serving import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def tracking(mlflow_uri: str) -> Tracking:
    return Tracking(mlflow_uri, "tracking-tests")


def tiny_onnx(path: Path) -> Path:
    """y = -x over a batch of three numbers."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_run_is_made_once_and_found_again(tracking: Tracking, mlflow_uri: str) -> None:
    parent = tracking.run("s1", "sweep one")
    child = tracking.run("s1/0", "trial 0", parent=parent, tags={"git_commit": "abc"})
    assert tracking.run("s1/0", "another name") == child
    run = MlflowClient(mlflow_uri).get_run(child)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["git_commit"] == "abc"
    tracking.end(child, "FINISHED")
    assert MlflowClient(mlflow_uri).get_run(child).info.status == "FINISHED"


def test_parameters_are_flat_masked_and_logged_once(tracking: Tracking, mlflow_uri: str) -> None:
    run_id = tracking.run("params", "params")
    config = {"a": {"b": 1, "c": [1, 2]}, "key": SecretStr("hunter2"), "uri": "http://u:hunter2@h/x"}
    tracking.log_params(run_id, config)
    tracking.log_params(run_id, config | {"a": {"b": 2}})  # as a continued sweep does; MLflow would refuse
    params = MlflowClient(mlflow_uri).get_run(run_id).data.params
    assert params == {"a.b": "1", "a.c": "[1, 2]", "key": MASK, "uri": f"http://{MASK}@h/x"}


def test_more_parameters_than_one_request_takes(tracking: Tracking, mlflow_uri: str) -> None:
    run_id = tracking.run("many", "many")
    tracking.log_params(run_id, {f"p{i}": i for i in range(230)})
    assert len(MlflowClient(mlflow_uri).get_run(run_id).data.params) == 230


def test_a_model_is_registered_with_its_signature_and_crowned(
    tracking: Tracking, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiny_onnx(tmp_path / "tiny.onnx")
    name = "tiny-model"
    assert tracking.champion(name) is None
    run_id = tracking.run("model", "model")
    first = tracking.register(run_id, path, name, {"recipe": "r"})
    assert tracking.champion(name) is None
    tracking.crown(first)
    assert tracking.register(run_id, path, name, {"recipe": "r"}) == first  # the same file, once
    second = tracking.register(tracking.run("model 2", "model 2"), path, name, {"recipe": "r"})
    assert tracking.champion(name) == first
    assert (first.version, second.version) == ("1", "2")
    other = tiny_onnx(tmp_path / "other.onnx")
    tracking.log_file(run_id, other, EXPORT)
    for name in ("tokenizer.json", "README.md"):
        (tmp_path / name).write_text("{}")
        tracking.log_file(run_id, tmp_path / name, EXPORT)
    back, *beside = tracking.download(first, tmp_path / "back")
    assert "Downloading" not in capfd.readouterr().err  # a job's output has no bars of MLflow's
    assert onnx.load(back).graph.node[0].op_type == "Neg"
    assert {path.name for path in beside} == {"other.onnx", "tokenizer.json"}
    inputs = signature(onnx.load(path)).inputs.to_dict()
    assert inputs[0]["name"] == "x"
    assert tuple(inputs[0]["tensor-spec"]["shape"]) == (-1, 3)


def test_no_server_is_said_in_one_sentence() -> None:
    port = free_port()
    with pytest.raises(UserError, match=f"no MLflow server answers at http://.*:{port}") as caught:
        Tracking(f"http://me:hunter2@127.0.0.1:{port}", "x")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("told", ["in json", "in words"])
def test_a_server_that_asks_who_this_is_is_not_waited_for(told: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.Response(text="OK")
        if told == "in json":
            return web.json_response({"detail": "who are you?"}, status=401)
        return web.Response(status=401, text="who are you?")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    with serving(app) as port, pytest.raises(UserError, match=r"does not let you in.*MLFLOW_TRACKING_TOKEN"):
        Tracking(f"http://me:hunter2@127.0.0.1:{port}", "x")


def test_what_a_server_refuses_is_said_in_one_sentence(mlflow_uri: str) -> None:
    there = Tracking(mlflow_uri, "thrown away")
    MlflowClient(mlflow_uri).delete_experiment(there.experiment_id)
    with pytest.raises(UserError, match=r"MLflow at .* refuses \(.*active.*\): nothing is lost"):
        Tracking(mlflow_uri, "thrown away").run("one", "one")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; .ci/run installs Debian's")
def test_the_comparison_shows_both_trials_and_their_metrics(tracking: Tracking, tmp_path: Path) -> None:
    runs = []
    for number, skill in enumerate((0.6125, 0.4875)):
        run_id = tracking.run(f"browser/{number}", f"browser trial {number}")
        tracking.log_params(run_id, {"student.width": 0.2 + number})
        tracking.log_metrics(run_id, {"validation/skill": skill}, step=1)
        runs.append(run_id)
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1600,3000", "--virtual-time-budget=30000",
        "--timeout=90000", "--dump-dom", tracking.compare_url(runs),
    ]  # fmt: skip
    page = subprocess.run(command, capture_output=True, text=True, timeout=400, check=True).stdout
    for shown in (
        "browser trial 0",
        "browser trial 1",
        "validation/skill",
        "0.6125",
        "0.4875",
        "student.width",
    ):
        assert shown in page, f"{shown} is not on the page"


@pytest.mark.parametrize("kind", [kind for kind, _ in SYSTEMS.values()])
def test_every_system_is_judged_by_a_name_that_mlflow_takes(kind: type[Experiment], mlflow_uri: str) -> None:
    client = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)
    client.create_registered_model(f"judged-{kind.system}")
    client.set_registered_model_tag(f"judged-{kind.system}", f"validation_{kind.judged_by}", "0.5")
