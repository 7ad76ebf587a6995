"""How long a segment takes and how much memory, each measured in a process of its own.

    python -m etude.evaluation.speed < REQUEST.json

is that process: it loads nothing but what it measures, so that its memory is that of whoever runs the file.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 2
LEAST_ROUNDS, MOST_ROUNDS = 5, 50
ENOUGH_S = 1.0  # of measuring, once there were enough rounds
_LEAVE_S = 600  # the slowest teacher on the slowest machine
_TEACHER_S = 30.0  # of audio that a teacher hears: several segments, so that loading it does not count
_MODULE = "etude.evaluation.speed"


@dataclass(frozen=True)
class Timing:
    """One segment through one file, or through the teacher."""

    what: str  # "mel", "waveform" or "teacher"
    threads: int
    ms: float  # median, for one segment
    times_realtime: float  # a segment's length over it
    peak_mb: float  # resident memory of the whole process at its highest, in 10^6 bytes


def time_file(path: Path, what: str, threads: int, segment_s: float) -> Timing:
    """An exported file on one segment at a time, of the CPU."""
    return _measured({"file": str(path.absolute())}, what, threads, segment_s)


def time_teacher(teacher: dict[str, Any], recipe: dict[str, Any], segment_s: float) -> Timing:
    """A teacher on one thread, from waveform to vectors, as preparing a library runs it.

    `teacher` and `recipe` are their configurations as plain values.
    """
    return _measured({"teacher": teacher, "recipe": recipe}, "teacher", 1, segment_s)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _measured(request: dict[str, Any], what: str, threads: int, segment_s: float) -> Timing:
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", _MODULE],
        input=json.dumps(request | {"threads": threads}),
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
        capture_output=True, text=True, timeout=_LEAVE_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the {what} could not be timed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Timing(what, threads, found["ms"], 1000 * segment_s / found["ms"], found["peak_mb"])


def main() -> None:
    """Measure what the request on stdin asks for, and answer on stdout."""
    request = json.load(sys.stdin)
    run, segments = _file(request) if "file" in request else _teacher(request)
    ms = median_ms(run) / segments
    print(json.dumps({"ms": ms, "peak_mb": peak_mb()}))


def median_ms(run: Callable[[], object]) -> float:
    """Median time of a call in ms, after some calls that do not count."""
    for _ in range(WARM_UP):
        run()
    rounds: list[float] = []
    while len(rounds) < LEAST_ROUNDS or (len(rounds) < MOST_ROUNDS and sum(rounds) < ENOUGH_S):
        started = time.perf_counter()
        run()
        rounds.append(time.perf_counter() - started)
    return 1000 * statistics.median(rounds)


def peak_mb() -> float:
    """The highest resident memory of this process so far, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux includes the process that started this one
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _file(request: dict[str, Any]) -> tuple[Callable[[], object], int]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(request["file"], options, providers=["CPUExecutionProvider"])
    (taken,) = opened.get_inputs()
    shape = [axis if isinstance(axis, int) else 1 for axis in taken.shape]
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    given = {taken.name: 0.1 * noise if len(shape) == 2 else 20 * noise - 40}  # a waveform, or a mel in dB
    return (lambda: opened.run(None, given)), 1


def _teacher(request: dict[str, Any]) -> tuple[Callable[[], object], int]:
    import torch
    from pydantic import TypeAdapter

    from etude.audio.decode import Audio
    from etude.audio.recipe import FeatureRecipe
    from etude.audio.segment import segments_of
    from etude.sources.base import Track
    from etude.teachers import TeacherConfig, build_teacher

    torch.set_num_threads(request["threads"])
    recipe = FeatureRecipe.model_validate(request["recipe"])
    teacher = build_teacher(TypeAdapter[Any](TeacherConfig).validate_python(request["teacher"]))
    n_samples = int(_TEACHER_S * recipe.sample_rate)
    samples = (0.1 * np.random.default_rng(0).normal(size=n_samples)).astype(np.float32)
    audio, segments = Audio(samples, recipe.sample_rate), segments_of(n_samples, recipe)
    track = Track("noise", "noise.wav", "Noise")
    return (lambda: teacher.embed(audio, segments, track)), len(segments)


if __name__ == "__main__":
    main()
