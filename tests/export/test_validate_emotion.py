"""Files that a plug-in can run pass, and each fault that is planted is found and named."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from etude.cli import guarded
from etude.emotion.models import FILES, MODELS
from etude.export.onnx import export_onnx
from etude.export.validate_emotion import validate
from etude.systems.emotion import export_spec
from tests.support.emotion_networks import export_emotion, lived_in

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENT = 1e9  # ms: what else runs on the machine is not what is tested


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    for model in MODELS:
        export_emotion(model, lived_in(model, "dense", heads=model == "recognizer"), folder)
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "models"))


@pytest.fixture(scope="module")
def job() -> Callable[..., int]:
    path = REPOSITORY / "jobs" / "validate_emotion.py"
    spec = importlib.util.spec_from_file_location("validate_job", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *words: guarded(module.main)([str(word) for word in words])


def issues(folder: Path, *checkpoints: Path) -> list[str]:
    return validate(folder, checkpoints, PATIENT).issues


def change(path: Path, how: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(path)
    how(model)
    onnx.save(model, path)


def small(path: Path, nodes: list[onnx.NodeProto], n_in: int, n_out: int, *weights: onnx.TensorProto) -> None:
    """A file of its own with the right names."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch_size", n_in])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch_size", n_out])],
        list(weights),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    path.with_suffix(".safetensors").unlink()  # of another network


def test_sound_files_pass_with_a_line_each(
    job: Callable[..., int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job("--models-dir", folder, "--output", tmp_path / "report.json", "--most-ms", PATIENT) == 0
    said = capsys.readouterr().out.splitlines()
    for line, name in zip(said, FILES.values(), strict=False):
        assert line.split()[:2] == [name, "ok"]
        assert "99th percentile" in line and "from PyTorch" in line
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"results", "issues", "summary"}
    assert report["issues"] == []
    assert report["summary"]["passed"] and report["summary"]["models_passed"] == 5
    assert report["summary"]["total_mb"] < 1
    for name, result in report["results"].items():
        assert result["passed"], name
        assert 0 <= result["difference"] <= 1e-5
        assert 0 < result["median_ms"] <= result["p99_ms"]


@pytest.mark.slow
def test_the_recurrent_ones_fit_too(tmp_path: Path) -> None:
    for model in MODELS:
        export_emotion(model, lived_in(model, "recurrent"), tmp_path)
    found = validate(tmp_path, most_ms=PATIENT)
    assert found.issues == []
    assert 4.5 < found.report()["summary"]["total_mb"] < 5


def test_a_missing_file_is_named_and_the_others_are_checked(
    job: Callable[..., int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "groove_predictor.onnx").unlink()
    (folder / "melody_transformer.json").unlink()
    assert job("--models-dir", folder, "--output", tmp_path / "report.json", "--most-ms", PATIENT) == 1
    said = capsys.readouterr().out
    assert "groove_predictor.onnx is missing" in said
    assert "melody_transformer.json cannot be read" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["issues"]) == 2
    assert report["summary"]["models_passed"] == 3
    assert report["results"]["groove_predictor"]["median_ms"] is None
    assert report["results"]["harmony_predictor"]["difference"] is not None


def test_a_wrong_output_width_is_found(folder: Path) -> None:
    shutil.copy(folder / "harmony_predictor.onnx", folder / "melody_transformer.onnx")
    (found,) = (i for i in issues(folder) if "the output of melody" in i)
    assert "['batch_size', 64], it must have ['batch_size', 128]" in found


def test_a_width_that_only_shows_when_it_runs_is_found(folder: Path) -> None:
    nodes = [
        helper.make_node("Compress", ["input", "chosen"], ["some"], axis=1),
        helper.make_node("Softmax", ["some"], ["output"]),
    ]
    chosen = numpy_helper.from_array(np.arange(128) < 63, "chosen")
    small(folder / "harmony_predictor.onnx", nodes, 128, 64, chosen)
    (found,) = issues(folder)
    assert "harmony_predictor.onnx gives [1, 63] for a batch of 1, it must give [1, 64]" in found


def test_a_batch_that_is_dynamic_by_name_only_is_found(folder: Path) -> None:
    nodes = [helper.make_node("Add", ["input", "pair"], ["sum"]), helper.make_node("Tanh", ["sum"], ["all"])]
    nodes.append(helper.make_node("Compress", ["all", "chosen"], ["output"], axis=1))
    weights = {"pair": np.zeros((2, 128), np.float32), "chosen": np.arange(128) < 64}
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    small(folder / "emotion_recognizer.onnx", nodes, 128, 64, *tensors)
    (found,) = issues(folder)
    assert "emotion_recognizer.onnx does not run" in found


def test_weights_that_are_no_numbers_are_found(folder: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        weights = model.graph.initializer[0]
        array = numpy_helper.to_array(weights).copy()
        array.flat[5] = np.nan
        weights.CopyFrom(numpy_helper.from_array(array, weights.name))

    change(folder / "dynamics_engine.onnx", spoil)
    assert any("dynamics_engine.onnx has weights that are no finite numbers" in one for one in issues(folder))


def test_a_checkpoint_that_is_no_numbers_is_an_issue(folder: Path, tmp_path: Path) -> None:
    state = {f"network.{k}": v for k, v in lived_in("groove", "dense").state_dict().items()}
    state["network.blocks.2.linear.bias"][0] = torch.nan
    torch.save({"model": state}, tmp_path / "best.pt")
    in_json, in_onnx = issues(folder, tmp_path / "best.pt")
    assert "are no longer numbers" in in_json
    assert "differs from PyTorch by nan" in in_onnx


def test_a_file_above_the_limit_is_found_alone_and_in_the_sum(folder: Path) -> None:
    change(
        folder / "groove_predictor.onnx",
        lambda model: model.graph.initializer.append(
            numpy_helper.from_array(np.zeros(1_300_000, np.float32), "ballast")
        ),
    )
    alone, together = issues(folder)
    assert alone == "groove_predictor.onnx has 5.24 MB, less than 5 MB is wanted"
    assert "MB together" in together


@pytest.mark.parametrize("what", ["input", "output"])
def test_another_name_is_found(folder: Path, what: str) -> None:
    def rename(model: onnx.ModelProto) -> None:
        old = getattr(model.graph, what)[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["features" if name == old.name else name for name in names]
        old.name = "features"

    change(folder / "emotion_recognizer.onnx", rename)
    (found,) = issues(folder)
    assert f"has as {what} features: it must be called {what}" in found


def test_a_constant_batch_is_found(folder: Path) -> None:
    def fix(model: onnx.ModelProto) -> None:
        for value in (model.graph.input[0], model.graph.output[0]):
            value.type.tensor_type.shape.dim[0].dim_value = 2

    change(folder / "melody_transformer.onnx", fix)
    found = issues(folder)
    assert len(found) == 2
    assert all("has the shape [2, " in issue for issue in found)


def test_a_batch_axis_of_another_name_is_found(folder: Path) -> None:
    network = lived_in("melody", "dense")
    spec = export_spec("melody", network)
    export_onnx(type(spec)(spec.name, spec.module, spec.inputs, spec.output_name), folder)
    assert all("has the shape ['batch', " in issue for issue in issues(folder))


@pytest.mark.parametrize(
    ("model", "operation", "said"),
    [
        ("emotion_recognizer", "Identity", "they must lie within -1 and 1"),
        ("melody_transformer", "Sigmoid", "probabilities that add up to"),
        ("groove_predictor", "Tanh", "they must lie within 0 and 1"),
        ("dynamics_engine", "Exp", "what is no finite number"),
    ],
)
def test_outputs_outside_their_range_are_found(folder: Path, model: str, operation: str, said: str) -> None:
    change(folder / f"{model}.onnx", lambda loaded: _end_in(loaded, operation))
    assert any(said in issue and model in issue for issue in issues(folder))


def _end_in(model: onnx.ModelProto, operation: str) -> None:
    last = model.graph.node[-1]
    last.op_type = operation
    del last.attribute[:]


def test_a_file_that_mixes_its_batch_is_found(folder: Path) -> None:
    """Its answers are fine one by one, and depend on what else is asked."""
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Tanh", ["centred"], ["all"]),
        helper.make_node("Slice", ["all", "zero", "width", "one"], ["output"]),
    ]
    constants = {"axes": [0], "zero": [0], "width": [64], "one": [1]}
    weights = [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in constants.items()]
    small(folder / "emotion_recognizer.onnx", nodes, 128, 64, *weights)
    assert any("answers otherwise in a batch of 1" in issue for issue in issues(folder))


def test_weights_of_another_training_are_found(folder: Path, tmp_path: Path) -> None:
    other = lived_in("melody", "dense", seed=1)
    torch.save({"model": {f"network.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "best.pt")
    in_json, in_onnx = issues(folder, tmp_path / "best.pt")
    assert "melody_transformer.json does not hold the weights that PyTorch has" in in_json
    assert "melody_transformer.onnx differs from PyTorch by" in in_onnx


def test_a_checkpoint_goes_before_what_lies_beside_the_file(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"nonsense")
    checkpoints = []
    for model in MODELS:
        state = lived_in(model, "dense", heads=model == "recognizer").state_dict()
        checkpoints.append(tmp_path / f"{model}.pt")
        torch.save({"model": {f"network.{k}": v for k, v in state.items()}}, checkpoints[-1])
    assert issues(folder, *checkpoints) == []
    unreadable = issues(folder)
    assert len(unreadable) == 5
    assert all("cannot read the weights" in issue for issue in unreadable)


def test_without_weights_nothing_is_claimed_of_agreement(
    job: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    assert job("--models-dir", folder, "--most-ms", PATIENT) == 0
    assert capsys.readouterr().out.count("not compared with PyTorch") == 5


def test_swapped_weights_are_found(folder: Path) -> None:
    shutil.copy(folder / "groove_predictor.safetensors", folder / "dynamics_engine.safetensors")
    assert issues(folder) == [
        "dynamics_engine.safetensors holds the groove, not the dynamics: export both again"
    ]


def test_too_slow_is_an_issue(folder: Path) -> None:
    found = validate(folder, most_ms=0).issues
    assert len(found) == 5
    assert all("at the 99th percentile, less than 0 ms is wanted" in issue for issue in found)


def test_what_is_no_onnx_file_is_an_issue(folder: Path) -> None:
    (folder / "groove_predictor.onnx").write_bytes(b"nonsense" * 100)
    (folder / "harmony_predictor.onnx").write_bytes(b"")
    whole = (folder / "emotion_recognizer.onnx").read_bytes()
    (folder / "emotion_recognizer.onnx").write_bytes(whole[: len(whole) // 2])
    found = issues(folder)
    assert len(found) == 3
    assert all("is no valid ONNX file" in issue and "\n" not in issue for issue in found)


def test_wrong_use_is_one_sentence_and_code_2(
    job: Callable[..., int], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {f"network.{k}": v for k, v in lived_in("melody", "dense").state_dict().items()}
    torch.save({"model": state}, tmp_path / "best.pt")
    best = ("--checkpoint", tmp_path / "best.pt")
    for words, reason in (
        (("--models-dir", tmp_path / "nowhere"), "there is no folder"),
        (("--models-dir", folder, "--checkpoint", tmp_path / "no.pt"), "cannot read the checkpoint"),
        (("--models-dir", folder, *best, *best), "is a second checkpoint of the melody"),
        (("--models-dir", folder, "--output", tmp_path / "no" / "report.json"), "cannot write the report"),
    ):
        assert job(*words) == 2
        said = capsys.readouterr().err.strip()
        assert reason in said
        assert len(said.splitlines()) == 1
    with pytest.raises(SystemExit, match="2"):
        job("--folder", folder)
