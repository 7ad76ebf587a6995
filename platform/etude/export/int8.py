"""A smaller form of an exported student, in 8-bit integers, kept only if measuring speaks for it.

Weights have a scale for each channel, activations one for each tensor, both fixed beforehand from what real
music makes of them. Integers are not faster everywhere: where an operation has no integer form, numbers are
converted back and forth around it. So the file is timed beside the float one, here and now.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from etude.data.batches import Dataset
from etude.evaluation.metrics import best_constant_cosine, unit
from etude.export.onnx import int8_of, read_metadata, run_onnx, session, write_metadata

MIN_COSINE = 0.99  # mean, to the float model: what issue 4 asks for
CALIBRATION_SEGMENTS = 64
HELD_OUT_SEGMENTS = 64
ROUNDS = 21  # timed calls of each model
WARM_UP = 3
BATCH_SIZE = 8


@dataclass(frozen=True)
class Int8:
    """What an integer form measured beside its float form, on one thread and a segment at a time."""

    file: Path | None  # None: it was not worth keeping
    float_ms: float  # median, a segment
    int8_ms: float
    mean_cosine: float  # to the float model's vectors of held-out segments
    min_cosine: float
    constant_cosine: float  # what the best constant would reach as mean
    n_segments: int  # that the cosines are of
    float_bytes: int
    int8_bytes: int

    @property
    def faster(self) -> bool:
        """Whether it takes less time than the float model."""
        return self.int8_ms < self.float_ms

    @property
    def faithful(self) -> bool:
        """Whether it says what the float model says."""
        return self.mean_cosine > MIN_COSINE

    def describe(self) -> str:
        """The figures, and what became of the file."""
        figures = (
            f"INT8: {self.int8_ms:.1f} ms a segment on one thread, float {self.float_ms:.1f} ms; cosine to "
            f"the float model on {self.n_segments} held-out segments {self.mean_cosine:.4f} (least "
            f"{self.min_cosine:.4f}, best constant {self.constant_cosine:.4f}); "
            f"{self.int8_bytes / 1e6:.2f} MB, float {self.float_bytes / 1e6:.2f} MB"
        )
        if self.file is not None:
            return f"{figures}\nINT8: `{self.file.name}`"
        reasons = [] if self.faster else ["it is not faster on this machine"]
        reasons += [] if self.faithful else [f"its mean cosine is not above {MIN_COSINE}"]
        return f"{figures}\nINT8 is not offered: {' and '.join(reasons)}; the float file stays"


def offer_int8(mel_file: Path, learned_from: Dataset, held_out: Dataset, card: Path) -> Int8:
    """Quantise a student's mel form; `<name>_int8.onnx` lies beside it afterwards, or nothing does.

    Scales come from music that the student learned from, the figures from held-out music. They stand in the
    file's record, and on the card.
    """
    path = int8_of(mel_file)
    with tempfile.TemporaryDirectory(dir=mel_file.parent) as folder:
        made = quantise(mel_file, _spread(learned_from, CALIBRATION_SEGMENTS), Path(folder))
        found = compare(mel_file, made, _spread(held_out, HELD_OUT_SEGMENTS), path)
        if found.file is not None:
            figures = {name: value for name, value in vars(found).items() if name != "file"}
            write_metadata(made, read_metadata(mel_file) | {"precision": "int8", "int8": figures})
            made.replace(path)
            with card.open("a") as text:
                text.write(f"\n## 8-bit form, measured where it was made\n\n{found.describe()}\n")
        else:
            path.unlink(missing_ok=True)  # of an earlier export
    return found


def quantise(mel_file: Path, mels_N1MT: NDArray[np.float32], folder: Path) -> Path:
    """Write the integer form of a mel form into a folder, its scales from these spectrograms [n, 1, m, t]."""
    prepared, path = folder / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(mel_file, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        path,
        _Calibration(mels_N1MT),
        quant_format=QuantFormat.QDQ,
        nodes_to_exclude=_float_nodes(prepared),
        per_channel=True,
        # Without VNNI, as on AVX2, products of 8 by 8 bits overflow their 16; of 7 by 8 they do not.
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    return path


def compare(mel_file: Path, int8_file: Path, mels_N1MT: NDArray[np.float32], path: Path) -> Int8:
    """Figures of both files on spectrograms; `path` is where the integer one is to lie if they are good."""
    as_float, as_int8 = session(mel_file), session(int8_file)
    float_ND, int8_ND = (unit(run_onnx(opened, mels_N1MT, BATCH_SIZE)) for opened in (as_float, as_int8))
    cosines = (float_ND * int8_ND).sum(axis=1)
    constant = best_constant_cosine(float_ND, np.full(len(float_ND), 1 / len(float_ND)))
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(WARM_UP + ROUNDS):
        one = mels_N1MT[round_ % len(mels_N1MT)][None]
        for opened, taken in zip((as_float, as_int8), times, strict=True):
            started = time.perf_counter()
            run_onnx(opened, one, 1)
            taken.append(1000 * (time.perf_counter() - started))
    float_ms, int8_ms = (statistics.median(taken[WARM_UP:]) for taken in times)
    mean, least = float(cosines.mean()), float(cosines.min())
    sizes = mel_file.stat().st_size, int8_file.stat().st_size
    kept = path if int8_ms < float_ms and mean > MIN_COSINE else None
    return Int8(kept, float_ms, int8_ms, mean, least, constant, len(cosines), *sizes)


def _spread(dataset: Dataset, n: int) -> NDArray[np.float32]:
    """Up to n segments [n, 1, n_mels, n_frames] from all over a dataset."""
    items = [(i, j) for i, row in enumerate(dataset) for j in range(len(row.segment_targets))]
    chosen = np.unique(np.linspace(0, len(items) - 1, n).astype(int))
    return dataset.batch([items[i] for i in chosen]).mel.numpy()[:, None]


def _float_nodes(path: Path) -> list[str]:
    """Nodes that stay as they are: up to the first convolution, and from the mean over all places.

    The first hears decibels, what follows the mean has next to nothing of the work, and both hurt most.
    """
    nodes = onnx.load(path).graph.node
    first = next(i for i, node in enumerate(nodes) if node.op_type == "Conv")
    last = max(i for i, node in enumerate(nodes) if node.op_type == "ReduceMean")
    return [node.name for i, node in enumerate(nodes) if i <= first or i >= last]


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Spectrograms one at a time, as the quantiser asks for them."""

    def __init__(self, mels_N1MT: NDArray[np.float32]) -> None:
        self._mels: Iterator[NDArray[np.float32]] = iter(mels_N1MT)

    def get_next(self) -> dict[str, Any] | None:
        mel = next(self._mels, None)
        return None if mel is None else {"mel_spectrogram": mel[None]}
