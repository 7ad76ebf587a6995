"""What fewer dimensions cost a search in MERT's space: neighbours that are missed, seconds and memory.

    python benchmarks/reduction.py [--tracks 2000] [--to 128 512 1024] [--width 1024] [--one-window]
                                   [--pieces 8]

Made-up vectors of the true size, 76,800: 25 layers of 1,024, each much like the one before, of tracks in
60 clusters around a common mean, as mean, spread and slope over windows; with --one-window the last two are
0, as for clips of 10 s. Their 600 hidden dimensions have standard deviations that fall as 1/sqrt(i). Queries
are tracks that are held out, and vectors like a text's: near a track, and mostly outside of what tracks span.

Baselines in the same run: the exact search among whole vectors, and a random projection that needs no
library (every number with a random sign into a random one of d sums: Weinberger et al. 2009). Each is
measured in a process of its own. --pieces measures on real music as well: MusiCNN's layers on three seconds
of chorales, whose mean, spread and slope over frames are 2,259 numbers.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from etude.cli import guarded
from etude.evaluation.metrics import unit
from etude.evaluation.speed import peak_mb
from etude.inference.reduction import Reduction, fit_reduction, recall_lost

LAYERS, HIDDEN, CLUSTERS = 25, 600, 60
QUERIES = 50
PATCH, HOP = 48_128, 12_000  # samples of MusiCNN at 16 kHz


class RandomProjection:
    """Stands where a `Reduction` may stand, and knows no library."""

    def __init__(self, dim: int, to: int) -> None:
        rng = np.random.default_rng(0)
        entries = rng.choice(np.float32([-1, 1]), dim), (np.arange(dim), rng.integers(to, size=dim))
        self.matrix = csr_matrix(entries, shape=(dim, to))

    def tracks(self, vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        return unit(vectors_ND @ self.matrix).astype(np.float32)

    def queries(self, vectors_ND: NDArray[np.float32]) -> tuple[NDArray[np.float32], None]:
        return self.tracks(vectors_ND), None


def made_up(n: int, width: int, one_window: bool) -> NDArray[np.float32]:
    """Vectors [n, 3 x layers x width] of length 1."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    scale = np.arange(1, HIDDEN + 1, dtype=np.float32) ** -0.5
    centres = normal(CLUSTERS, HIDDEN)
    hidden = (
        (centres[rng.integers(CLUSTERS, size=n)] + normal(n, HIDDEN)) * scale / np.linalg.norm(scale) / 1.4
    )
    vectors = np.zeros((n, 3, LAYERS, width), np.float32)
    mix, mean = normal(HIDDEN, width), 2 * normal(width)
    for layer in range(LAYERS):
        mix = 0.9 * mix + 0.44 * normal(HIDDEN, width)
        mean = 0.9 * mean + 0.87 * normal(width)
        size = 1 + layer / 12
        vectors[:, 0, layer] = size * (mean + hidden @ mix + 0.3 * normal(n, width))
        if not one_window:
            spread = 1 + 0.3 * hidden @ normal(HIDDEN, width) + 0.3 * normal(n, width)
            vectors[:, 1, layer] = 0.3 * size * np.abs(spread)
            vectors[:, 2, layer] = 0.02 * size * normal(n, width)
    vectors = vectors.reshape(n, -1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def like_texts(library_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries [q, dim]: the mean of all, a track's difference from it, and noise where tracks are not 0."""
    rng = np.random.default_rng(1)
    mean = library_ND.mean(axis=0)
    towards = unit(library_ND[rng.integers(len(library_ND), size=QUERIES)] - mean)
    noise = unit(rng.standard_normal(towards.shape) * (library_ND[:20] != 0).any(axis=0))
    return (0.5 * unit(mean[None]) + 0.4 * towards + 0.75 * noise).astype(np.float32)


def heard(pieces: int) -> NDArray[np.float32]:
    """Vectors [n, 2,259] of the real MusiCNN's layers on chorales by Bach, a patch every 0.75 s."""
    import midirenderer  # none of these should count in the memory of what is measured
    import torch
    from music21 import corpus

    from etude.audio.decode import decode
    from etude.teachers.musicnn import MusiCNN, log_mel_patches

    soundfont = Path(str(distribution("pretty_midi").locate_file("pretty_midi/TimGM6mb.sf2"))).read_bytes()
    net, outputs, vectors = MusiCNN()._net, [], []
    for part in (*net.timbral, net.temporal, *net.middle):
        part.register_forward_hook(lambda module, given, output: outputs.append(output))
    for path in [p for p in corpus.getComposer("bach") if str(p).endswith(".mxl")][:pieces]:
        with tempfile.TemporaryDirectory() as folder:
            midi = Path(corpus.parse(path).write("midi", fp=Path(folder) / "score.mid")).read_bytes()
        samples = decode(bytes(midirenderer.render_wave_from(soundfont, midi))).resampled(16_000)
        outputs.clear()
        with torch.inference_mode():
            net(torch.from_numpy(log_mel_patches(samples, np.arange(0, len(samples) - PATCH, HOP))))
        frames = torch.cat([one if one.shape[1] == 187 else one.transpose(1, 2) for one in outputs], 2)
        low, high = torch.quantile(frames, torch.tensor([0.25, 0.75]), dim=1)
        slope = (frames[:, -1] - frames[:, 0]) / 186
        vectors.append(torch.cat([frames.mean(1), (high - low) / 1.349, slope], 1).numpy())
    return np.concatenate(vectors)[np.random.default_rng(0).permutation(sum(map(len, vectors)))]


def measure(path: str, kind: str, to: int) -> dict[str, float]:
    """One way of searching the vectors of a file, in this process."""
    vectors = np.load(path, mmap_mode="r")
    held_out, library = vectors[:QUERIES], vectors[QUERIES:]
    queries = {"held-out": held_out, "like texts": like_texts(library)}
    start = time.perf_counter()
    way = {
        "exact": lambda: None,
        "fitted": lambda: fit_reduction(library, to),
        "random": lambda: RandomProjection(library.shape[1], to),
    }[kind]()
    took: dict[str, float] = {"fit_s": time.perf_counter() - start}
    rows = np.asarray(library) if way is None else way.tracks(library)
    start = time.perf_counter()
    for query in held_out:
        reduced = query if way is None else way.queries(query[None])[0][0]
        np.argsort(-(rows @ reduced))[:10]
    took |= {"query_ms": 1e3 * (time.perf_counter() - start) / QUERIES, "peak_mb": peak_mb()}
    if way is not None:
        took |= {name: recall_lost(library, some, way) for name, some in queries.items()}
        if isinstance(way, Reduction):
            took["kept_mb"] = way.basis_Dd.nbytes / 1e6
    return took


def apart(path: Path, kind: str, to: int = 0) -> dict[str, float]:
    """`measure` in a process of its own."""
    words = [sys.executable, __file__, "--measure", str(path), kind, str(to)]
    measured: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return measured


def compare(vectors: NDArray[np.float32], sizes: list[int], folder: Path) -> None:
    """A line for every way of searching."""
    path = folder / "vectors.npy"
    np.save(path, vectors)
    whole = apart(path, "exact")
    print(
        f"{len(vectors) - QUERIES} vectors of {vectors.shape[1]:,}; exact: {whole['query_ms']:.1f} ms a query"
    )
    for kind, to in [(kind, to) for kind in ("fitted", "random") for to in sizes]:
        took = apart(path, kind, to)
        slower = took["query_ms"] / whole["query_ms"]
        memory = took["peak_mb"] / whole["peak_mb"]
        print(
            f"  {kind} {to:5d}  lost: held-out {took['held-out']:6.1%}, like texts {took['like texts']:6.1%}"
            f"  fit {took['fit_s']:6.1f} s, query {took['query_ms']:5.1f} ms ({slower:.2f} of the exact)"
            f"  kept {took.get('kept_mb', 0.0):4.0f} MB, peak {took['peak_mb']:5.0f} MB ({memory:.2f})",
            flush=True,
        )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=2000)
    parser.add_argument("--to", type=int, nargs="+", default=[128, 512, 1024, 4096])
    parser.add_argument("--width", type=int, default=1024, help="of a layer; MERT's is 1,024")
    parser.add_argument("--one-window", action="store_true")
    parser.add_argument("--pieces", type=int, default=0)
    parser.add_argument("--measure", nargs=3, metavar=("FILE", "KIND", "TO"), help="one way only, as JSON")
    chosen = parser.parse_args(argv)
    if chosen.measure:
        path, kind, to = chosen.measure
        print(json.dumps(measure(path, kind, int(to))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        compare(made_up(chosen.tracks + QUERIES, chosen.width, chosen.one_window), chosen.to, Path(folder))
        if chosen.pieces:
            compare(heard(chosen.pieces), chosen.to, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
