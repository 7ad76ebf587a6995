"""A frozen encoder in an ONNX file: opened on one thread or a GPU, run with sentences for what goes wrong."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from etude.errors import UserError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxFile:
    """An ONNX file with one thread: preparing runs one teacher a core. `device` is PyTorch's: cpu, cuda:1.

    It travels to other processes as its path, and opens there again. Raises UserError if there is no such
    file, if it is none, or if it is to run on a GPU and ONNX Runtime cannot.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.path = path
        self._device = device
        self._session = _open(path, device)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._session = _open(self.path, self._device)

    @property
    def inputs(self) -> dict[str, list[int | str | None]]:
        """Name and shape of every input; an axis of any length has a name, or None."""
        return {one.name: list(one.shape) for one in self._session.get_inputs()}

    def hash(self) -> str:
        """Eight digits of the sha256 of the file, and of the files that hold its weights if there are any."""
        content = self.path.read_bytes()
        digest = sha256(content)
        for name in _weight_files(content):
            digest.update((self.path.parent / name).read_bytes())
        return digest.hexdigest()[:8]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The first output. Raises UserError if the file does not take these inputs."""
        try:
            return np.asarray(self._session.run(None, dict(inputs))[0], np.float32)
        except Exception as error:  # ONNX Runtime's errors share no other base
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise UserError(f"{self.path} cannot be run on {shapes}: {_first_line(error)}") from error

    def check(self, inputs: Mapping[str, NDArray[Any]], dim: int) -> None:
        """Run the file once: one finite vector of `dim` numbers an item must come out, or UserError."""
        vectors = self.run(inputs)
        n = len(next(iter(inputs.values())))
        if vectors.shape != (n, dim):
            found = list(vectors.shape)
            raise UserError(f"{self.path} gives {found} for a batch of {n}, not [{n}, {dim}] as CLAP does")
        if not np.isfinite(vectors).all():
            raise UserError(f"{self.path} gives vectors that are not finite: its weights are damaged")


def shapes_of(inputs: Mapping[str, list[int | str | None]]) -> str:
    """Inputs for a sentence: `mel [batch, 1, 1001, 64]`."""
    named = (f"{name} [{', '.join(str(axis or '?') for axis in shape)}]" for name, shape in inputs.items())
    return ", ".join(named) or "no input"


def _open(path: Path, device: str) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise UserError(f"there is no file {path}: give the path of an ONNX file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=_providers(path, device))
    except UserError:
        raise
    except Exception as error:  # as in `run`
        raise UserError(
            f"{path} cannot be opened as an ONNX file ({type(error).__name__}: {_first_line(error)}): "
            "it is damaged, or another file; choose another"
        ) from error
    # A GPU that cannot be had is passed over in silence otherwise.
    if device.startswith("cuda") and CUDA not in session.get_providers():
        raise UserError(f"{path} does not run on {device}: ONNX Runtime finds no GPU; run it on the CPU")
    return session


def _providers(path: Path, device: str) -> list[str | tuple[str, dict[str, str]]]:
    if not device.startswith("cuda"):
        return [CPU]
    if CUDA not in onnxruntime.get_available_providers():
        raise UserError(
            f"{path} cannot run on {device}: this ONNX Runtime knows no CUDA; "
            "install onnxruntime-gpu instead of onnxruntime, or run it on the CPU"
        )
    # Trying out every algorithm anew takes longer than the work (facts/audiomuse.md, e).
    number = device.partition(":")[2] or "0"
    return [(CUDA, {"device_id": number, "cudnn_conv_algo_search": "HEURISTIC"}), CPU]


def _weight_files(content: bytes) -> list[str]:
    """Names of the files beside it in which an ONNX file keeps weights."""
    try:
        graph = onnx.load_model_from_string(content).graph
    except DecodeError:  # larger than a protocol buffer may be, so it keeps none
        return []
    tensors = [one for one in graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    return sorted({entry.value for one in tensors for entry in one.external_data if entry.key == "location"})


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
