"""What a job prints at its end is true and readable, also where there is little to say."""

import math
from pathlib import Path

import numpy as np

from etude.evaluation.metrics import Metrics, evaluate
from etude.export.parity import Parity
from etude.export.publish import Published
from etude.students.cost import Cost
from etude.summary import student_summary
from etude.tracking.mlflow import ModelVersion


def published(test: Metrics) -> Published:
    parity = {"waveform": Parity(5, 0.99999, 1e-6, True)}
    model = ModelVersion("etude-student-clap", "3", "models:/etude-student-clap/3")
    path = Path("student.onnx")
    cost = Cost(920_000, 41_000_000)
    return Published(path, (path,), test, test, parity, cost, model, True, "it is the first")


def metrics(n_tracks: int) -> Metrics:
    generator = np.random.default_rng(0)
    teacher = generator.normal(size=(n_tracks * 6, 8))
    track = np.repeat(np.arange(n_tracks), 6)
    noise = 0.3 * generator.normal(size=teacher.shape)
    return evaluate(teacher + noise, teacher, track, generator.normal(size=(n_tracks, 8)))


def test_figures_stand_beside_doing_nothing() -> None:
    test = metrics(12)
    text = student_summary(published(test))
    assert f"skill                {test.skill:.3f}" in text
    assert f"{test.overlap / test.overlap_chance:.1f} times chance" in text
    assert "champion: it is the first" in text


def test_one_held_out_track_gives_no_neighbours_and_says_so() -> None:
    test = metrics(1)
    assert math.isnan(test.overlap)
    text = student_summary(published(test))
    assert "too few held-out tracks to have neighbours" in text
    assert "nan" not in text
