"""One ONNX file per encoder: weights inside, dynamic batch, and a record of how it was made."""

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from etude.systems.base import ExportSpec

OPSET = 18
METADATA_KEY = "etude"


def export_onnx(spec: ExportSpec, folder: Path) -> Path:
    """Write `<folder>/<spec.name>.onnx`; returns its path."""
    path = folder / f"{spec.name}.onnx"
    batch = torch.export.Dim(spec.batch_axis, min=1)
    with _quiet():
        program = torch.onnx.export(
            spec.module.eval(),
            tuple(spec.inputs.values()),
            input_names=list(spec.inputs),
            dynamic_shapes=tuple({0: batch} for _ in spec.inputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
        )
    assert program is not None
    graph = program.model.graph
    for value in (value for node in graph for value in node.outputs):
        if value.name == spec.output_name:  # named after its operation, an embedding for instance
            value.name = f"{value.name}_inside"
    graph.outputs[0].name = spec.output_name
    onnx.checker.check_model(program.model_proto, full_check=True)
    onnx.save(program.model_proto, path, save_as_external_data=False)
    return path


def int8_of(path: Path) -> Path:
    """Where the 8-bit form of an exported file lies, if there is one."""
    return path.with_name(f"{path.stem}_int8.onnx")


def write_metadata(path: Path, metadata: Mapping[str, object]) -> None:
    """Put a record, as JSON under the key `etude`, into an exported file."""
    model = onnx.load(path)
    del model.metadata_props[:]
    record = json.dumps(_finite(metadata), sort_keys=True, allow_nan=False)
    model.metadata_props.add(key=METADATA_KEY, value=record)
    onnx.save(model, path, save_as_external_data=False)


def _finite(value: object) -> object:
    """JSON knows no nan: a figure that could not be told is null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metadata(path: Path) -> dict[str, object]:
    """The record inside an exported file; empty if it was not written by Étude."""
    model = onnx.load(path, format="protobuf", load_external_data=False)
    found = [prop.value for prop in model.metadata_props if prop.key == METADATA_KEY]
    return dict(json.loads(found[0])) if found else {}


def session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A file opened for inference on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_onnx(
    opened: onnxruntime.InferenceSession,
    inputs: NDArray[np.float32] | Mapping[str, NDArray[Any]],
    batch_size: int,
) -> NDArray[np.float32]:
    """Embeddings [n, dim] of inputs [n, ...], by name if there are several, a batch at a time."""
    named = inputs if isinstance(inputs, Mapping) else {opened.get_inputs()[0].name: inputs}
    n = len(next(iter(named.values())))
    parts = [
        opened.run(None, {name: array[start : start + batch_size] for name, array in named.items()})[0]
        for start in range(0, n, batch_size)
    ]
    return np.concatenate(parts)


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """The exporter prints its progress and warns of its own deprecations; neither is the user's matter."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
