"""A try of a student on something of the user's own: what it takes to be nearest, beside its teacher."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnx import numpy_helper

from etude.audio.decode import check_audible, decode
from etude.audio.segment import segments_of
from etude.data.batches import Features
from etude.errors import BadAudio, UserError
from etude.evaluation.metrics import unit
from etude.evaluation.text import ExportedText
from etude.experiments.audio import AudioStudy
from etude.experiments.text import TextStudy
from etude.export.onnx import read_metadata, run_onnx, session
from etude.inference.student import BATCH_SIZE, Student
from etude.inference.vectors import VectorFolder
from etude.sources.base import Track
from etude.students.tokens import shorten
from etude.teachers import StoredConfig

SHOWN = 10
WIDTH = 44  # of a name in a table
PART_TRACKS = 256  # whose vectors are written at a time


@dataclass(frozen=True)
class Nearest:
    """The nearest things with their cosines, nearest first, as a student and as its teacher see them."""

    what: str  # completes "nearest of 120 ..."
    n_candidates: int
    by_student: tuple[tuple[str, float], ...]
    by_teacher: tuple[tuple[str, float], ...] | None  # None: the teacher cannot hear a file
    n_shared: int

    def describe(self) -> str:
        """A table, and how many the two share."""
        n = len(self.by_student)
        columns = [("the student's", self.by_student)]
        if self.by_teacher is not None:
            columns.append(("the teacher's", self.by_teacher))
        lines = [f"the {n} nearest of {self.n_candidates} {self.what}, each with its cosine:"]
        lines.append("    " + "  ".join(f"{title:{WIDTH + 8}}" for title, _ in columns).rstrip())
        for place in range(n):
            cells = [f"{found[place][1]:6.3f}  {_cut(found[place][0]):{WIDTH}}" for _, found in columns]
            lines.append(f"{place + 1:3} " + "  ".join(cells).rstrip())
        if self.by_teacher is None:
            return "\n".join([*lines, "the teacher knows stored vectors only, and cannot hear a file"])
        return "\n".join([*lines, f"{self.n_shared} of {n} are the same"])


@dataclass(frozen=True, eq=False)
class Heard:
    """A file of the user's, and what the teacher says of it."""

    path: Path
    data: bytes
    teacher: NDArray[np.float32] | None  # [dim]; None: the teacher cannot hear


def hear(path: Path, study: AudioStudy) -> Heard:
    """Read a file and ask the teacher for its vector. Raises UserError if it cannot be read or used."""
    prepare = study.settings.prepare
    try:
        data = path.expanduser().read_bytes()
        audio = decode(data)
        check_audible(audio, prepare.min_duration_s, prepare.silence_dbfs)
        if isinstance(study.settings.teacher, StoredConfig):
            return Heard(path, data, None)
        recipe = study.settings.recipe
        segments = segments_of(len(audio.resampled(recipe.sample_rate)), recipe)
        track = Track(str(path), str(path), path.stem)
        return Heard(path, data, study.teacher.embed(audio, segments, track).track)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except BadAudio as error:
        raise UserError(f"{path} cannot be tried ({error}): give another file") from None


def nearest_tracks(heard: Heard, files: Sequence[Path], study: AudioStudy) -> Nearest:
    """The tracks of the prepared library nearest to a file.

    `files` are the student's mel form, which hears the library, and its waveform form, which hears the file.
    Raises UserError if the student has no vector for it.
    """
    settings, splits = study.settings, study.splits
    rows = sorted(
        (*splits.train, *splits.validation, *splits.test), key=lambda row: (row.track.title, row.track.id)
    )
    student = Student(files[1], settings.prepare.min_duration_s, settings.prepare.silence_dbfs)
    try:
        vector_D = student.embed(heard.data)
    except BadAudio as error:
        raise UserError(f"{heard.path} cannot be tried ({error}): give another file") from None
    names = [f"{row.track.title} ({row.track.artist or 'unknown'})" for row in rows]
    by_student = vector_D, library_vectors(files[0], rows, settings.cache / "nearest")
    by_teacher = None
    if heard.teacher is not None:
        by_teacher = heard.teacher, np.stack([row.track_target for row in rows])
    return nearest("prepared tracks", names, by_student, by_teacher)


def check_query(text: str, study: TextStudy) -> None:
    """Raises UserError if a text is empty, or longer than the teacher or the student takes."""
    if not text.strip():
        raise UserError('there is nothing to try: give a query, as in --test "slow piano"')
    for who, model in (("teacher", study.teacher), ("student", study.test.tokens)):
        if model.too_long([text]):
            raise UserError(f"the text {shorten(text)!r} is longer than the {who} takes: shorten it")


def nearest_queries(text: str, file: Path, study: TextStudy) -> Nearest:
    """The held-out queries nearest to a text that `check_query` has let pass."""
    student, test = ExportedText(file, study.teacher.id), study.test
    by_student = student.embed([text])[0], student.embed(test.texts)
    by_teacher = study.teacher.embed([text])[0], test.vectors
    return nearest("held-out queries", test.texts, by_student, by_teacher)


def nearest(
    what: str,
    names: Sequence[str],
    by_student: tuple[NDArray[np.float32], NDArray[np.float32]],
    by_teacher: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    k: int = SHOWN,
) -> Nearest:
    """The k nearest of named candidates, each side given as (vector [dim], the candidates' [n, dim])."""
    of_student = _ranked(*by_student, k)
    of_teacher = None if by_teacher is None else _ranked(*by_teacher, k)
    shared = {i for i, _ in of_student} & {i for i, _ in of_teacher or ()}
    return Nearest(
        what,
        len(names),
        tuple((names[i], cosine) for i, cosine in of_student),
        None if of_teacher is None else tuple((names[i], cosine) for i, cosine in of_teacher),
        len(shared),
    )


def library_vectors(
    mel_file: Path,
    rows: Sequence[Features],
    cache: Path,
    progress: Callable[[int, int, float], None] = lambda done, total, audio_s: None,
) -> NDArray[np.float32]:
    """A student's vectors [n, dim] of prepared tracks, each the mean of its segments'.

    They come from the stored spectrograms, and are kept below `cache`, in a folder for every student.
    `progress(done, total, audio_seconds)` is called as they are computed.
    """
    opened = session(mel_file)
    dim = int(opened.get_outputs()[0].shape[1])
    model = weights_hash(mel_file)
    folder = VectorFolder(cache / model, model, dim)
    folder.create()
    done = folder.done()
    new = [row for row in rows if row.track.id not in done]
    seconds = 0.0
    for start in range(0, len(new), PART_TRACKS):
        part = []
        for row in new[start : start + PART_TRACKS]:
            vectors = run_onnx(opened, row.mel.segments()[:, None], BATCH_SIZE)
            part.append((row.track, vectors.mean(axis=0)))
            seconds += row.track.duration_s or 0.0
            progress(start + len(part), len(new), seconds)
        folder.write(part)
    table = pq.read_table(folder.path, columns=["track_id", "vector"])
    kept = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
    place = {track_id: i for i, track_id in enumerate(table["track_id"].to_pylist())}
    return np.asarray(kept[[place[row.track.id] for row in rows]], np.float32)


def weights_hash(file: Path) -> str:
    """Sixteen digits that change with an exported student's weights, design or recipe.

    Exported anew, the same student may have its nodes in another order and its record another commit.
    """
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer]
    digests = sorted(
        hashlib.sha256(f"{a.shape}{a.dtype}".encode() + a.tobytes()).hexdigest() for a in tensors
    )
    record = read_metadata(file)
    made = json.dumps([record.get("student"), record.get("recipe_id"), digests], sort_keys=True)
    return hashlib.sha256(made.encode()).hexdigest()[:16]


def _ranked(
    vector_D: NDArray[np.float32], candidates_ND: NDArray[np.float32], k: int
) -> list[tuple[int, float]]:
    cosines = unit(candidates_ND) @ unit(vector_D[None])[0]
    return [(int(i), float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:k]]


def _cut(name: str) -> str:
    return name if len(name) <= WIDTH else f"{name[: WIDTH - 3]}..."
