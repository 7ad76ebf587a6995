"""An exported student against its teacher over a prepared library: all that jobs/evaluate.py measures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.data.batches import Dataset
from etude.errors import UserError
from etude.evaluation.distribution import Distribution, distribution
from etude.evaluation.inputs import Inputs
from etude.evaluation.metrics import Metrics, evaluate, neighbour_overlaps, segment_weights, track_means, unit
from etude.evaluation.retrieval import Answers, answers
from etude.evaluation.speed import Timing, cores, time_file, time_teacher
from etude.export.onnx import run_onnx, session
from etude.teachers import StoredConfig

NEIGHBOURS = (1, 5, 10)
THREADS = (1, 4)
_BATCH_SIZE = 16
Progress = Callable[[int, int, float], None]  # tracks done, tracks in all, seconds of audio done


@dataclass(frozen=True)
class Evaluation:
    """Everything measured; `answers` is a sentence where the teacher understands no text."""

    inputs: Inputs
    metrics: Metrics
    distribution: Distribution
    neighbours: dict[int, tuple[float, float]]  # overlap and chance by number of neighbours
    answers: Answers | str
    timings: tuple[Timing, ...]
    student_ND: NDArray[np.float32]
    teacher_ND: NDArray[np.float32]
    track_N: NDArray[np.int64]
    track_cosine_T: NDArray[np.float64]


def measure(inputs: Inputs, progress: Progress) -> Evaluation:
    """Run the student over the set, compare, and time it."""
    dataset = inputs.dataset
    student, track = student_vectors(inputs.model.path, dataset, progress)
    teacher = np.concatenate([row.segment_targets for row in dataset])
    teacher_tracks = np.stack([row.track_target for row in dataset])
    student_tracks = unit(track_means(student, track, len(dataset)))
    texts = inputs.texts
    weight = segment_weights(track)
    return Evaluation(
        inputs=inputs,
        metrics=evaluate(student, teacher, track, teacher_tracks),
        distribution=distribution(student, teacher, track, teacher_tracks),
        neighbours=neighbour_overlaps(unit(student), unit(teacher), track, weight, NEIGHBOURS),
        answers=texts
        if isinstance(texts, str)
        else answers(
            texts.queries, (texts.teacher_QD, unit(teacher_tracks)), (texts.student_QD, student_tracks)
        ),
        timings=tuple(_timings(inputs)),
        student_ND=student,
        teacher_ND=teacher,
        track_N=track,
        track_cosine_T=(student_tracks * unit(teacher_tracks)).sum(axis=1),
    )


def student_vectors(
    path: Path, dataset: Dataset, progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors [n, dim] of every segment from the stored mels, and the track [n] each belongs to."""
    opened = session(path, cores())
    vectors, seconds = [], 0.0
    for done, row in enumerate(dataset, start=1):
        vectors.append(run_onnx(opened, row.mel.segments()[:, None], _BATCH_SIZE))
        seconds += row.track.duration_s or 0.0
        progress(done, len(dataset), seconds)
    student = np.concatenate(vectors)
    if not np.isfinite(student).all():
        raise UserError(f"{path} gives vectors that are not finite: it is damaged, export it again")
    return student, np.repeat(np.arange(len(vectors)), [len(one) for one in vectors])


def _timings(inputs: Inputs) -> list[Timing]:
    model, settings = inputs.model, inputs.study.settings
    segment_s = settings.recipe.segment_samples / settings.recipe.sample_rate
    forms = {"mel": model.path} | ({"waveform": model.waveform} if model.waveform else {})
    found = [time_file(path, form, n, segment_s) for form, path in forms.items() for n in THREADS]
    if not isinstance(settings.teacher, StoredConfig):  # which does not listen
        teacher = settings.teacher.model_dump(mode="json")
        found.append(time_teacher(teacher, settings.recipe.model_dump(mode="json"), segment_s))
    return found
