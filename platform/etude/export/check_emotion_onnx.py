"""Whether one exported emotion network is what a plug-in can run: structure, ranges, time, agreement."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from etude.emotion.models import FILES
from etude.export.emotion_network import COMPARED, TOLERANCE, difference_of, usual_inputs
from etude.export.onnx import read_metadata, session
from etude.students.emotion import EmotionNetwork
from etude.students.emotion_layers import Activation, Plan
from etude.systems.emotion import BATCH_AXIS, INPUT, OUTPUT

EXTREME = 1e6  # what no feature comes near; three layers make no infinity of it
WARM_UP, TIMED, ROUNDS = 20, 300, 3
_ROUNDING = 1e-6
_SUM = 1e-4  # how far from 1 probabilities may add up


@dataclass
class Figures:
    """What was measured of a file; nan where it could not be."""

    mb: float = math.nan  # 10^6 bytes
    median_ms: float = math.nan
    p99_ms: float = math.nan
    difference: float = math.nan  # largest, of one number, from PyTorch


def structure_issues(path: Path, plan: Plan) -> Iterator[str]:
    """What is wrong with a file as can be told without running it, one sentence each."""
    try:
        model = onnx.load(path, load_external_data=False)
        if any(onnx.external_data_helper.uses_external_data(one) for one in model.graph.initializer):
            yield f"{path.name} keeps its weights in another file: export it as one"
            return
        onnx.checker.check_model(model, full_check=True)
    except (OSError, DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield f"{path.name} is no valid ONNX file ({first_line(error)})"
        return
    said = read_metadata(path).get("model")
    if said is not None and path.stem not in [file for name, file in FILES.items() if name == said]:
        yield f"{path.name} is another model, {said}: export each under its own name"
    weights = model.graph.initializer
    strange = [one.name for one in weights if not np.isfinite(onnx.numpy_helper.to_array(one)).all()]
    if strange:
        yield f"{path.name} has weights that are no finite numbers ({strange[0]})"
    stored = {one.name for one in weights}  # old files list their weights as inputs too
    inputs = [value for value in model.graph.input if value.name not in stored]
    for what, values, name, width in (
        ("input", inputs, INPUT, plan.n_in),
        ("output", model.graph.output, OUTPUT, plan.output.n_out),
    ):
        if [value.name for value in values] != [name]:
            found = ", ".join(value.name for value in values)
            yield f"{path.name} has as {what} {found}: it must be called {name}, and be the only one"
            continue
        tensor = values[0].type.tensor_type
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            yield f"the {what} of {path.name} is not float32"
        axes = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
        if axes != [BATCH_AXIS, width]:
            yield f"the {what} of {path.name} has the shape {axes}, it must have {[BATCH_AXIS, width]}"


def running_issues(
    path: Path, plan: Plan, network: EmotionNetwork | None, figures: Figures, most_ms: float
) -> Iterator[str]:
    """What is wrong with a file of sound structure when it runs; fills in the figures of time and agreement.

    With a network it is compared with that.
    """
    try:
        yield from _running_issues(path, plan, network, figures, most_ms)
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        yield f"{path.name} does not run ({first_line(error)})"


def first_line(error: Exception) -> str:
    """The first line of a message, to stand within a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".:")


def _running_issues(
    path: Path, plan: Plan, network: EmotionNetwork | None, figures: Figures, most_ms: float
) -> Iterator[str]:
    opened, n_out = session(path), plan.output.n_out
    usual_NI = _noise(plan) if network is None else usual_inputs(network, COMPARED)
    whole_NO = _answers(opened, usual_NI)
    for n in (1, 7):
        few_BO = _answers(opened, usual_NI[:n])
        if few_BO.shape != (n, n_out):
            yield f"{path.name} gives {list(few_BO.shape)} for a batch of {n}, it must give {[n, n_out]}"
            return
        if not np.allclose(few_BO, whole_NO[:n], rtol=0, atol=TOLERANCE, equal_nan=True):
            yield f"{path.name} answers otherwise in a batch of {n}"
    for kind, inputs_NI in (("usual", usual_NI), ("extreme", _extremes(plan.n_in))):
        if fault := _range_fault(_answers(opened, inputs_NI), plan.output.activation):
            yield f"{path.name} gives for {kind} inputs {fault}"
    figures.median_ms, figures.p99_ms = _times_ms(opened, usual_NI[:1], most_ms)
    if not figures.p99_ms < most_ms:
        yield (
            f"{path.name} takes {figures.median_ms:.3f} ms in the median and {figures.p99_ms:.3f} ms at the "
            f"99th percentile, less than {most_ms:g} ms is wanted"
        )
    if network is not None:
        figures.difference = difference_of(network, path)
        if not figures.difference <= TOLERANCE:
            yield (
                f"{path.name} differs from PyTorch by {figures.difference:.1e}, allowed is {TOLERANCE:.0e}: "
                "export the network again"
            )


def _range_fault(output_NO: NDArray[np.float32], activation: Activation) -> str:
    """How outputs leave the range of the last activation; empty if they do not."""
    if not np.isfinite(output_NO).all():
        return "what is no finite number"
    low, high = float(output_NO.min()), float(output_NO.max())
    least = -1.0 if activation == "tanh" else 0.0
    if low < least - _ROUNDING or high > 1 + _ROUNDING:
        return f"numbers from {low:.3g} to {high:.3g}, they must lie within {least:g} and 1"
    sums_N = output_NO.sum(axis=1)
    if activation == "softmax" and np.abs(sums_N - 1).max() > _SUM:
        return f"probabilities that add up to {sums_N.min():.4g} to {sums_N.max():.4g}, it must be 1"
    return ""


def _times_ms(
    opened: onnxruntime.InferenceSession, input_1I: NDArray[np.float32], most_ms: float
) -> tuple[float, float]:
    """Median and 99th percentile of one inference on one thread, after a warm-up.

    Where other work holds the processor the file is not to blame: it has three rounds, and the best counts.
    """
    for _ in range(WARM_UP):
        _answers(opened, input_1I)
    best = (math.inf, math.inf)
    for _ in range(ROUNDS):
        times_ms = []
        for _ in range(TIMED):
            started = time.perf_counter()
            _answers(opened, input_1I)
            times_ms.append(1000 * (time.perf_counter() - started))
        found = (float(np.median(times_ms)), float(np.percentile(times_ms, 99)))
        best = min(best, found, key=lambda pair: pair[1])
        if best[1] < most_ms:
            break
    return best


def _answers(opened: onnxruntime.InferenceSession, inputs_NI: NDArray[np.float32]) -> NDArray[np.float32]:
    output: NDArray[np.float32] = opened.run([OUTPUT], {INPUT: inputs_NI})[0]
    return output


def _noise(plan: Plan) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(COMPARED, plan.n_in)).astype(np.float32)


def _extremes(n_in: int) -> NDArray[np.float32]:
    """Silence, both ends, and both in turn: [6, n_in]."""
    ends = np.array([0, 1, -1, EXTREME, -EXTREME])
    alternating = np.where(np.arange(n_in) % 2, EXTREME, -EXTREME)
    return np.vstack([np.repeat(ends[:, None], n_in, axis=1), alternating]).astype(np.float32)
