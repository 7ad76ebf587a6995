"""Times and memory are those of the thing measured, in a process of its own."""

import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from etude.audio.recipe import FeatureRecipe
from etude.evaluation.speed import (
    LEAST_ROUNDS,
    WARM_UP,
    cores,
    median_ms,
    peak_mb,
    time_file,
    time_teacher,
)


def products(path: Path, n: int, side: int) -> Path:
    """A file over mels that multiplies square matrices `n` times."""
    shape = ["batch", 1, side, side]
    nodes = [helper.make_node("MatMul", [f"x{i}", "x0"], [f"x{i + 1}"]) for i in range(n)]
    graph = helper.make_graph(
        nodes, "products",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{n}", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def test_more_work_takes_longer_and_memory_is_that_of_the_file_alone(tmp_path: Path) -> None:
    import torch  # the process that asks is large, and the one that measures must not inherit it

    assert torch.ones(1).sum() == 1
    small = time_file(products(tmp_path / "small.onnx", 1, 64), "mel", 1, 10.0)
    large = time_file(products(tmp_path / "large.onnx", 40, 512), "mel", 1, 10.0)
    assert large.ms > 20 * small.ms
    assert small.times_realtime == pytest.approx(10_000 / small.ms)
    assert 10 < small.peak_mb < 0.8 * peak_mb()
    assert (large.what, large.threads) == ("mel", 1)


def test_a_teacher_is_timed_from_its_configuration() -> None:
    found = time_teacher({"name": "msd_musicnn"}, FeatureRecipe().model_dump(), 10.0)
    assert found.what == "teacher"
    assert 0.1 < found.ms < 60_000
    assert found.times_realtime == pytest.approx(10_000 / found.ms)


def test_what_cannot_be_run_is_no_time(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="the mel could not be timed"):
        time_file(tmp_path / "broken.onnx", "mel", 1, 10.0)


def test_one_slow_call_does_not_change_the_median() -> None:
    calls = []

    def run() -> None:
        calls.append(1)
        time.sleep(0.5 if len(calls) == WARM_UP + 2 else 0.1)

    assert 100 <= median_ms(run) < 400
    assert len(calls) >= WARM_UP + LEAST_ROUNDS
    assert cores() >= 1
