"""What training waits for: the real step over a prepared library, against batches already in memory.

    python benchmarks/train_step.py [--device cuda --batch 64] [--width 0.4] [--compile] [--tracks 200]

A library of made-up tracks of three minutes is written into a temporary folder in the store's own format
(5 MB a track). `etude.training.epoch.learn` then trains a mobilenet on it, and, taking turns, as many steps
on four of its batches that lie on the device beforehand; both with and without augmentation. Ray is not
needed, and the script ends with an error if something imports it.

The files were just written, so they come from the operating system's memory. A library that does not fit
there is read from its disk at the rate that the last line says.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.audio.track_mel import layout_of
from etude.cli import guarded, say
from etude.data.batches import Batch, Dataset, open_splits
from etude.data.sampling import SamplingConfig, TrainingSegments
from etude.data.split import SplitConfig
from etude.data.store import Store, features_part, targets_part
from etude.errors import UserError
from etude.evaluation.speed import peak_mb
from etude.objectives.distillation import ObjectiveConfig
from etude.sources.base import Track
from etude.students import StudentConfig
from etude.systems.base import TrainingData
from etude.systems.student_clap import StudentClap
from etude.training.epoch import Learner, Position, Worker, learn
from etude.training.optimizer import adamw, parameter_groups
from etude.training.plan import TrainingConfig
from etude.training.schedule import Schedule

RECIPE = FeatureRecipe()
TEACHER, DIM = "made-up-0", 512
TRACK_S, TRACKS_A_SHARD = 180, 8
MOST_COST = 0.05
IN_MEMORY = 4  # batches
AUGMENTED = AugmentConfig(
    roll_frames=100, gain_db=1.0, noise_share=0.5, mixup_alpha=0.4, freq_masks=1, time_masks=1
)


class Some:
    """A `TrainingData` with so many steps an epoch, each epoch beginning anew where the data is used up."""

    def __init__(self, data: TrainingData, steps: int) -> None:
        self._data = data
        self._steps = steps

    def steps(self, batch_size: int) -> int:
        return self._steps

    def batches(self, batch_size: int, *, seed: int, epoch: int, **shares: int) -> Iterator[Batch]:
        made = 0
        while made < self._steps:
            for batch in self._data.batches(batch_size, seed=seed, epoch=epoch * 1000 + made, **shares):
                made += 1
                yield batch

    def target_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self._data.target_statistics()


class InMemory(Some):
    """The first few batches of other data, on the device before the first step, again and again."""

    def __init__(self, data: TrainingData, steps: int, batch_size: int, device: torch.device) -> None:
        super().__init__(data, steps)
        batches = islice(Some(data, IN_MEMORY).batches(batch_size, seed=0, epoch=0), IN_MEMORY)
        self._batches = [batch.to(device) for batch in batches]

    def batches(self, batch_size: int, *, seed: int, epoch: int, **shares: int) -> Iterator[Batch]:
        return islice(cycle(self._batches), self._steps)


@dataclass
class Seconds:
    """What one way took, round by round."""

    wall: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=float, default=0.4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tracks", type=int, default=200, help="5 MB each")
    parser.add_argument("--steps", type=int, default=20, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(argv)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no GPU here: leave --device out")
    device = torch.device(chosen.device)
    with tempfile.TemporaryDirectory() as folder:
        say(f"writing {chosen.tracks} tracks of {TRACK_S} s ...")
        data = TrainingSegments(_library(Path(folder), chosen.tracks), SamplingConfig())
        ways = {
            "library": Some(data, chosen.steps),
            "in memory": InMemory(data, chosen.steps, chosen.batch, device),
        }
        for name, augmentation in (("plain", AugmentConfig()), ("augmented", AUGMENTED)):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            _report(name, _measure(_learner(chosen, augmentation, device, data), ways, chosen.rounds), chosen)
    if "ray" in sys.modules:
        raise UserError("Ray was imported: this script must run without it")
    say("Ray was not imported")
    return 0


def _library(folder: Path, n_tracks: int) -> Dataset:
    """The training set of a library of made-up mels and targets in the store's format."""
    generator = np.random.default_rng(0)
    store = Store(folder)
    n_samples = TRACK_S * RECIPE.sample_rate
    layout = layout_of(n_samples, RECIPE)
    tracks = [
        Track(f"made-up-{i:05d}", f"{i}.wav", f"Track {i}", duration_s=TRACK_S) for i in range(n_tracks)
    ]
    noise = generator.normal(0, 6, size=(layout.n_stored, RECIPE.n_mels)).astype(np.float16)
    for start in range(0, n_tracks, TRACKS_A_SHARD):
        features, targets = [], []
        for track in tracks[start : start + TRACKS_A_SHARD]:
            levels = generator.normal(-40, 12, size=RECIPE.n_mels).astype(np.float16)
            vectors = generator.normal(size=(layout.n_segments + 1, DIM)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            row: dict[str, Any] = {"track_id": track.id, "n_samples": n_samples}
            features.append(row | {"frames": (noise + levels).tobytes()})
            targets.append(row | {"segments": vectors[1:].tobytes(), "track": vectors[0].tobytes()})
        store.write_shard(features_part(RECIPE), _table(features))
        store.write_shard(targets_part(TEACHER, RECIPE), _table(targets))
    store.write_catalogue("made-up", tracks)
    return open_splits(store, "made-up", RECIPE, [TEACHER], SplitConfig()).train


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    kinds = {str: pa.string(), int: pa.int64(), bytes: pa.large_binary()}
    return pa.Table.from_pylist(rows, schema=pa.schema([(k, kinds[type(v)]) for k, v in rows[0].items()]))


def _learner(
    chosen: argparse.Namespace, augmentation: AugmentConfig, device: torch.device, data: TrainingData
) -> Learner:
    """What `etude.training.loop.train` builds, without its checkpoints."""
    torch.manual_seed(0)
    config = TrainingConfig(batch_size=chosen.batch, precision=chosen.precision, compile=chosen.compile)
    student = StudentConfig(width=chosen.width)
    system = StudentClap(student, ObjectiveConfig(), augmentation, RECIPE, dim=DIM, normalized=True)
    system.to(device)
    if config.compile:
        system.compile_student()
    system.start_at(data)
    groups = parameter_groups(system)
    optimizer = adamw(groups, config.learning_rate, config.weight_decay)
    rates = [group.rate for group in groups]
    schedule = Schedule("cosine", total_steps=1_000_000, warmup_steps=0)
    worker = Worker(device=device)
    return Learner(system, system.weights, config, config.stages[0], optimizer, rates, schedule, 0, worker)


def _measure(learner: Learner, ways: dict[str, Some], rounds: int) -> dict[str, Seconds]:
    """Every way in turn, round after round; the first round warms up."""
    seconds = {name: Seconds() for name in ways}
    for round_ in range(rounds + 1):
        for name, data in ways.items():
            position = Position(history=[{}] * round_)
            processor, wall = time.process_time(), time.perf_counter()
            metrics = learn(learner, data, position)
            if round_:
                seconds[name].wall.append(time.perf_counter() - wall)
                seconds[name].processor.append(time.process_time() - processor)
                seconds[name].waiting.append(metrics["seconds_waiting"])
    return seconds


def _report(title: str, seconds: dict[str, Seconds], chosen: argparse.Namespace) -> None:
    n_segments = chosen.steps * chosen.batch
    say(f"\n{title}: mobilenet {chosen.width:g}, batch {chosen.batch}, {chosen.device}, {chosen.precision}")
    for name, took in seconds.items():
        wall = statistics.median(took.wall)
        waiting = statistics.median(took.waiting) / wall
        say(f"  {name:12}{n_segments / wall:10.1f} segments/s{waiting:10.1%} of the time waiting for data")
    library, memory = seconds["library"], seconds["in memory"]
    cost = statistics.median(a / b for a, b in zip(library.wall, memory.wall, strict=True)) - 1
    say(f"  input costs   {cost:8.1%}  (must be at most {MOST_COST:.0%})")
    processor = statistics.median(a / b for a, b in zip(library.processor, memory.processor, strict=True)) - 1
    say(f"  of the processor's time {processor:.1%} more than in memory")
    if chosen.device == "cuda":
        say(f"  largest GPU memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    say(f"  largest resident memory so far {peak_mb():.0f} MB, mapped files included")
    read = 2 * RECIPE.n_mels * RECIPE.n_frames * n_segments / statistics.median(library.wall)
    say(f"  mels read at {read / 2**20:.1f} MiB/s")


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
