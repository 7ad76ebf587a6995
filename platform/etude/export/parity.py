"""The gate: an export is refused unless real audio gives what PyTorch gives, from waveform to embedding."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from etude.audio.decode import decode
from etude.audio.mel import log_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.audio.waveform import prepare_waveform
from etude.errors import UserError
from etude.evaluation.metrics import unit
from etude.export.onnx import run_onnx, session

MIN_COSINE = 0.9999
TIE = 1e-4  # neighbours whose cosines differ by less may change places
NEIGHBOURS = 5
MAX_SEGMENTS = 12  # of one track


@dataclass(frozen=True)
class Parity:
    """How well a file agrees with PyTorch."""

    n: int  # inputs that were compared
    min_cosine: float
    max_difference: float  # largest difference of one number
    same_neighbours: bool


@dataclass(frozen=True)
class RealAudio:
    """Segments of real tracks as a user of the files has them."""

    waveforms: NDArray[np.float32]  # [n, segment_samples] as decoded and resampled, not yet rounded
    mels: NDArray[np.float32]  # [n, n_mels, n_frames] from the CPU path that made the training features


def real_audio(data: bytes, recipe: FeatureRecipe) -> RealAudio:
    """Decode and cut a file; of a long one, MAX_SEGMENTS spread over it. Raises BadAudio."""
    audio = decode(data)
    resampled = audio.resampled(recipe.sample_rate)
    segments = segments_of(len(resampled), recipe)
    chosen = np.unique(np.linspace(0, len(segments) - 1, MAX_SEGMENTS).astype(int))
    starts = tuple(segments.starts[i] for i in chosen)
    mel = log_mel(prepare_waveform(audio, recipe), recipe)
    waveforms = replace(segments, starts=starts).cut(resampled, recipe.sample_rate)
    return RealAudio(waveforms, np.stack([mel.segment(int(i)) for i in chosen]))


def compare(reference_ND: NDArray[np.float32], other_ND: NDArray[np.float32]) -> Parity:
    """Agreement of two sets of embeddings of the same segments."""
    a, b = unit(reference_ND), unit(other_ND)
    return Parity(
        n=len(a),
        min_cosine=float((a * b).sum(axis=1).min()),
        max_difference=float(np.abs(reference_ND - other_ND).max()),
        same_neighbours=_same_neighbours(a, b),
    )


def check_parity(
    student: nn.Module, mel_file: Path, waveform_file: Path, audio: RealAudio, batch_size: int = 8
) -> dict[str, Parity]:
    """Run both files over real audio beside PyTorch fed by the training front end.

    Raises UserError if any segment's cosine is below 0.9999 or a neighbour changes.
    """
    student.eval()
    with torch.inference_mode():
        reference = torch.cat(
            [
                student(torch.from_numpy(part))
                for part in np.array_split(audio.mels, -(-len(audio.mels) // batch_size))
            ]
        ).numpy()
    results = {
        "mel_spectrogram": compare(reference, run_onnx(session(mel_file), audio.mels[:, None], batch_size)),
        "waveform": compare(reference, run_onnx(session(waveform_file), audio.waveforms, batch_size)),
    }
    require(results)
    return results


def require(results: Mapping[str, Parity]) -> None:
    """Raises UserError if any input's cosine is below 0.9999 or a neighbour changes."""
    for name, parity in results.items():
        if parity.min_cosine < MIN_COSINE or not parity.same_neighbours:
            raise UserError(
                f"the export over {name} does not agree with PyTorch on real input (least cosine "
                f"{parity.min_cosine:.6f}, needed {MIN_COSINE}; same neighbours: {parity.same_neighbours}): "
                "the files were not kept"
            )


def _same_neighbours(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether each segment's nearest neighbours by `b` are also its nearest by `a`, ties aside."""
    k = min(NEIGHBOURS, len(a) - 1)
    if k < 1:
        return True
    by_a, by_b = a @ a.T, b @ b.T
    np.fill_diagonal(by_a, -np.inf)
    np.fill_diagonal(by_b, -np.inf)
    chosen = np.argpartition(-by_b, k - 1, axis=1)[:, :k]
    needed = np.sort(by_a, axis=1)[:, -k]
    return bool((np.take_along_axis(by_a, chosen, axis=1) >= needed[:, None] - TIE).all())
