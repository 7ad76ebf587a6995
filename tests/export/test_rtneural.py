"""The JSON alone gives what PyTorch gives, for all ten networks; so does the ONNX file."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from etude.emotion.models import FILES, Model
from etude.errors import UserError
from etude.export.emotion_network import answers, read_network, usual_inputs
from etude.export.onnx import run_onnx, session
from etude.export.rtneural import rtneural, write_rtneural
from etude.students.emotion import build_emotion_network
from etude.students.emotion_folding import folded
from etude.students.emotion_layers import EmotionStudentConfig, Variant, folded_plan
from tests.support.emotion_networks import TEN, export_emotion, lived_in
from tests.support.rtneural import Interpreter


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_an_independent_interpreter_agrees_with_pytorch(
    model: Model, variant: Variant, tmp_path: Path
) -> None:
    network = lived_in(model, variant, heads=model == "recognizer")
    write_rtneural(network, FILES[model], tmp_path / "model.json")
    content = json.loads((tmp_path / "model.json").read_text())
    inputs = usual_inputs(network, 64)
    expected = answers(network, inputs)
    assert expected.std(axis=0).mean() > expected.mean(axis=0).std()  # no constant would do
    np.testing.assert_allclose(Interpreter(content)(inputs), expected, rtol=0, atol=1e-5)
    activations = [layer.get("activation") for layer in content["layers"]]
    assert activations == [getattr(layer, "activation", None) for layer in network.plan.layers]
    metadata, n_parameters = content["metadata"], folded_plan(network.plan, standardisation=True).parameters
    assert metadata == {
        "model_name": FILES[model],
        "framework": "PyTorch",
        "export_version": "2.0",
        "parameter_count": n_parameters,
        "memory_bytes": 4 * n_parameters,
        "input_size": network.plan.n_in,
        "output_size": network.plan.output.n_out,
    }


@pytest.mark.parametrize("model", ["recognizer", "melody"])
def test_a_plug_in_that_never_resets_its_lstm_gets_the_same_answers(model: Model) -> None:
    torch.manual_seed(0)
    network = build_emotion_network(model, EmotionStudentConfig(variant="recurrent")).eval()
    running, inputs = Interpreter(rtneural(network, "")), usual_inputs(network, 30)
    for _ in range(3):
        np.testing.assert_allclose(running(inputs), answers(network, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_folding_changes_nothing_but_the_layers(model: Model, variant: Variant) -> None:
    network = lived_in(model, variant)
    inputs = usual_inputs(network, 64)
    plain = folded(network, standardisation=False)
    np.testing.assert_allclose(answers(plain, inputs), answers(network, inputs), rtol=0, atol=1e-5)
    assert not any("norm" in name for name in plain.state_dict())


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_an_exported_file_agrees_and_is_named_as_the_seed_names_it(
    model: Model, variant: Variant, tmp_path: Path
) -> None:
    network = lived_in(model, variant, heads=model == "recognizer")
    files = export_emotion(model, network, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{FILES[model]}{ending}" for ending in (".onnx", ".json", ".safetensors")
    }
    inputs = usual_inputs(network, 9)
    found = run_onnx(session(files.onnx), inputs, 4)
    np.testing.assert_allclose(found, answers(network, inputs), rtol=0, atol=1e-5)
    assert files.difference <= 1e-5
    graph = onnx.load(files.onnx).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["input", "output"]
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch_size"
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    back, stored = read_network(files.weights)
    assert back == model
    np.testing.assert_array_equal(answers(stored, inputs), answers(network, inputs))


def test_weights_that_are_no_numbers_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    network = lived_in("groove", "dense")
    network.last.bias.data[3] = torch.nan
    with pytest.raises(UserError, match="weights of groove_predictor are no longer numbers"):
        export_emotion("groove", network, tmp_path)
    assert not list(tmp_path.iterdir())


def test_unreadable_weights_are_one_sentence(tmp_path: Path) -> None:
    for name, content in (
        ("no.safetensors", None),
        ("bad.safetensors", b"nonsense"),
        ("bad.pt", b"nonsense"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name) as caught:
            read_network(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save({"model": {"student.weight": torch.zeros(3)}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt holds none of the emotion networks"):
        read_network(tmp_path / "other.pt")
