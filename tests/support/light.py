"""The real pipeline with a source and a teacher so light that thousands of tracks take a minute.

    python -m tests.support.light '{"store": …}'

is a driver: it joins the cluster in RAY_ADDRESS, prepares what is missing and prints what came of it as
JSON. Every file takes a while to come, as from a server. Actors and tasks note the process and the node in
which they work, so that a test can kill one in the middle and see who took its place.
"""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from etude.audio.decode import Audio
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import Segments
from etude.cli import guarded
from etude.data import prepare as pipeline
from etude.data.catalogue import Catalogue
from etude.data.features import Featurize
from etude.data.fetch import Fetch
from etude.data.plan import Job, Plan, PrepareConfig, compare
from etude.data.shards import write_rows
from etude.data.store import Store, features_part, targets_part
from etude.evaluation.speed import peak_mb
from etude.sources import FolderConfig, Track
from etude.teachers import MusiCNNConfig, Targets

RATE = 8_000  # Hz
SECONDS = 0.5
RECIPE = FeatureRecipe(
    sample_rate=RATE, segment_samples=RATE, hop_samples=RATE // 2, n_fft=256, hop_length=80, n_mels=16,
    fmax=RATE / 2,
)  # fmt: skip
BAD_EVERY = 50  # one track in so many is silent and goes to quarantine


@dataclass(frozen=True)
class Light:
    """What a driver is asked for."""

    store: str
    notes: str  # a folder for what actors and tasks note
    tracks: int = 200
    latency_s: float = 0.05  # that a file takes to come
    listen_s: float = 0  # that a teacher takes for a track
    gpus_per_actor: float = 0
    shard_tracks: int = 8
    wait_for_cpus: int = 0  # which nodes bring that come by themselves
    together: int = 0  # no file comes before so many teachers are there: their start is not measured


@dataclass(frozen=True)
class Came:
    """What came of it."""

    total: int
    found: int
    prepared: int
    quarantined: int
    unreachable: int
    rate: float  # tracks a second, from when all teachers had started to the last shard
    start_s: float  # until the first shard: mostly actors that start
    peak_mb: float  # of the driver's memory


class Tones:
    """Half a second of a tone each; what a file holds depends only on its number."""

    id = "tones"

    def __init__(self, tracks: int, latency_s: float) -> None:
        self._tracks, self._latency_s = tracks, latency_s

    def tracks(self) -> Iterator[Track]:
        for number in range(self._tracks):
            yield Track(f"tone-{number:06d}", str(number), f"Tone {number}", duration_s=SECONDS)

    async def fetch(self, track: Track) -> bytes:
        await asyncio.sleep(self._latency_s)
        number = int(track.uri)
        level = 0.0 if number % BAD_EVERY == 7 else 8_000.0
        samples = level * np.sin(np.arange(int(RATE * SECONDS)) * (0.1 + 0.001 * (number % 1000)))
        data = io.BytesIO()
        with wave.open(data, "wb") as file:
            file.setparams((1, 2, RATE, len(samples), "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
        return data.getvalue()

    async def aclose(self) -> None: ...


class Loudness:
    """A teacher that says how loud 8 parts of a segment are."""

    id, dim, normalized, license, anchors = "loudness-0", 8, False, "CC0", None

    def embed(self, audio: Audio, segments: Segments, track: Track) -> Targets:
        samples = audio.samples.mean(0) if audio.samples.ndim == 2 else audio.samples
        cut = segments.cut(samples, audio.sample_rate)
        levels = np.sqrt(np.square(cut.reshape(len(cut), self.dim, -1)).mean(-1))
        return Targets(levels, levels.mean(0))


PARTS = (features_part(RECIPE), targets_part(Loudness.id, RECIPE))


def job_of(light: Light) -> Job:
    """Only the source and the teacher that it names are others: see `swapped`."""
    options = PrepareConfig(
        min_duration_s=0.1, shard_tracks=light.shard_tracks, gpus_per_actor=light.gpus_per_actor
    )
    elsewhere = FolderConfig(path=Path("/nonexistent"))
    return Job(light.store, Path(light.notes), elsewhere, RECIPE, (MusiCNNConfig(),), options)


def swapped(light: Light) -> None:
    """Put the light source and teacher into the pipeline, and let every step note where it works."""
    note = noting(Path(light.notes))

    def light_plan(job: Job, catalogue: Catalogue | None = None) -> Plan:
        source, store = Tones(light.tracks, 0), Store(job.store)
        return compare(source, store, PARTS, RECIPE.id, again=False, catalogue=catalogue)

    class LightFetch(Fetch):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._source = Tones(light.tracks, light.latency_s)  # type: ignore[assignment]

        async def __call__(self, batch: pa.Table) -> pa.Table:
            while len(listening(light)) < light.together:
                await asyncio.sleep(0.1)
            fetched = await super().__call__(batch)
            note("fetch")
            return fetched

    class LightFeaturize(Featurize):
        def __init__(self, recipe: FeatureRecipe, teachers: Any, *limits: float, device: str = "cpu") -> None:
            super().__init__(recipe, (), *limits[:2])  # what is a GPU here is only called one
            self._teachers = [Loudness()]
            (Path(light.notes) / f"listening-{os.getpid()}").touch()

        def __call__(self, batch: pa.Table) -> pa.Table:
            features = super().__call__(batch)
            time.sleep(light.listen_s * batch.num_rows)
            note("featurize")
            return features

    def light_write(*arguments: Any, **more: Any) -> pa.Table:
        status = write_rows(*arguments, **more)
        note("write")  # what was written is committed, and nobody knows it yet
        return status

    pipeline.Fetch, pipeline.Featurize = LightFetch, LightFeaturize  # type: ignore[misc]
    pipeline.plan, pipeline.write_rows = light_plan, light_write


def listening(light: Light) -> list[Path]:
    """A note of every teacher that has started."""
    return [*Path(light.notes).glob("listening-*")]


def noting(folder: Path) -> Callable[[str], None]:
    """A function that leaves an empty file `<step>-<process>-<node>`, once a process.

    Where there is a file `kill-<step>`, the first process to see it renames it to `killed-<step>-<process>`
    and ends itself with SIGKILL.
    """
    noted: set[str] = set()

    def note(step: str) -> None:
        if step not in noted:
            noted.add(step)
            node = ray.get_runtime_context().get_node_id()
            (folder / f"{step}-{os.getpid()}-{node}").touch()
        with contextlib.suppress(FileNotFoundError):
            (folder / f"kill-{step}").rename(folder / f"killed-{step}-{os.getpid()}")
            os.kill(os.getpid(), signal.SIGKILL)

    return note


def main(argv: list[str]) -> int:
    light = Light(**json.loads(argv[0]))
    Path(light.notes).mkdir(parents=True, exist_ok=True)
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
    while ray.cluster_resources().get("CPU", 0) < light.wait_for_cpus:
        time.sleep(0.1)
    swapped(light)
    started, first = time.perf_counter(), 0.0

    def progress(done: int, total: int, seconds: float) -> None:
        nonlocal first
        first = first or (time.perf_counter() - started if done else 0.0)

    report = pipeline.prepare(job_of(light), progress)
    started_s = [path.stat().st_mtime for path in listening(light)]
    rate = report.total / (time.time() - max(started_s)) if started_s else 0.0
    came = Came(
        report.total, report.found, report.prepared, len(report.quarantined), len(report.unreachable),
        rate, first, peak_mb(),
    )  # fmt: skip
    print(json.dumps(asdict(came)))
    return 0


def outcome(driver: "subprocess.Popen[str]", within_s: float = 500) -> Came:
    """Wait for a driver that must end well."""
    out, err = driver.communicate(timeout=within_s)
    assert driver.returncode == 0, err
    return told(out)


def told(out: str) -> Came:
    """What a driver printed; Ray prints there too, when it wants to."""
    (line,) = (line for line in out.splitlines() if line.startswith('{"total"'))
    return Came(**json.loads(line))


def exact(light: Light) -> None:
    """Assert that every good track is in each part of the store once, and every bad one in quarantine."""
    store = Store(light.store)
    bad = {f"tone-{number:06d}" for number in range(light.tracks) if number % BAD_EVERY == 7}
    good = {f"tone-{number:06d}" for number in range(light.tracks)} - bad
    for part in PARTS:
        rows = store.commits(part)
        ids = rows["track_id"].to_pylist()
        assert sorted(ids) == sorted(good)
        written = (store.read_shard(part, name) for name in set(rows["shard"].to_pylist()))
        assert sorted(chain(*(table["track_id"].to_pylist() for table in written))) == sorted(good)
    assert set(store.quarantined(RECIPE.id)) == bad


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
