"""What Ray Data costs: the pipeline's rate against all cores running its bare function.

    python benchmarks/prepare.py [--copies 8]

The work is the real one, on the demo library's files: decode, segments, mel and the MusiCNN teacher's
targets for every track, then shards. The baseline is the same function in a plain loop: once in one process
on one core, and once in a process on every core at a time, where they share caches and memory. The first
ratio holds what the hardware takes and what Ray takes, the second only Ray. Rendering is done before.
"""

import argparse
import asyncio
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

os.environ |= {"OMP_NUM_THREADS": "1"}

import ray
import torch

from etude.cli import guarded
from etude.config import load
from etude.data.features import Featurize
from etude.data.plan import Job
from etude.data.prepare import PrepareReport, prepare
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import prepare_job
from etude.services.session import connect
from etude.sources import FolderConfig, build_source


def library(home: Path, copies: int) -> tuple[Path, float]:
    """A folder with every piece of the demo library `copies` times, and its length in seconds of audio."""
    settings = load(AudioExperiment, ["--home", str(home)])
    source = build_source(settings.source, settings.cache)
    folder = home / "benchmark-library"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seconds = 0.0
    for track in source.tracks():
        data = asyncio.run(source.fetch(track))
        seconds += copies * (track.duration_s or 0.0)
        for copy in range(copies):
            (folder / f"{track.id}-{copy}.flac").write_bytes(data)
    return folder, seconds


def bare(job: Job, files: list[Path], processes: int) -> float:
    """Seconds that the pipeline's function takes for the files in each of so many processes at a time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        together = context.Manager().Barrier(processes)
        return max(pool.map(loop, *zip(*[(job, files, together)] * processes, strict=True)))


def loop(job: Job, files: list[Path], together: Barrier) -> float:
    """Seconds of one process; it starts when all are ready."""
    tracks = {Path(track.uri).name: track for track in build_source(job.source, job.cache).tracks()}
    options = job.prepare
    featurize = Featurize(job.recipe, job.teachers, options.min_duration_s, options.silence_dbfs)
    torch.set_num_threads(1)
    featurize.features(files[0].read_bytes(), tracks[files[0].name], mel=True, targets=[True])
    together.wait()
    start = time.perf_counter()
    for file in files:
        featurize.features(file.read_bytes(), tracks[file.name], mel=True, targets=[True])
    return time.perf_counter() - start


def through_ray(job: Job) -> tuple[float, PrepareReport]:
    """Seconds that the whole pipeline takes, starting its actors and writing shards included."""
    start = time.perf_counter()
    report = prepare(job, lambda done, total, seconds: None)
    return time.perf_counter() - start, report


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--copies", type=int, default=8, help="of every piece: more work, less share of start-up"
    )
    parser.add_argument("--home", type=Path, default=Path("~/.local/share/etude-benchmark").expanduser())
    chosen = parser.parse_args(argv)
    connect(chosen.home)
    folder, audio_s = library(chosen.home, chosen.copies)
    files = sorted(folder.iterdir())
    cores = int(ray.cluster_resources()["CPU"])
    with tempfile.TemporaryDirectory() as store:
        settings = AudioExperiment(home=chosen.home, source=FolderConfig(name="folder", path=folder))
        job = replace(prepare_job(settings), store=store)
        sampled = files[:: max(1, len(files) // 60)]
        share = len(files) / len(sampled)
        alone_s, together_s = (bare(job, sampled, n) * share for n in (1, cores))
        ray_s, report = through_ray(job)
    assert report.prepared == len(files)
    print(f"{len(files)} tracks, {audio_s / 3600:.2f} hours of audio, {cores} cores")
    print(f"bare function, one core     {audio_s / alone_s:7.1f} x realtime")
    print(f"bare function, every core   {cores * audio_s / together_s:7.1f} x realtime")
    print(f"through Ray Data            {audio_s / ray_s:7.1f} x realtime  ({ray_s:.0f} s)")
    print(f"ratio to cores x one core   {alone_s / cores / ray_s:7.2f}  (wanted: at least 0.85)")
    print(f"ratio to every core at once {together_s / cores / ray_s:7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
