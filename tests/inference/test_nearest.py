"""What is nearest, by a student and by its teacher."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from etude.audio.decode import decode
from etude.audio.mel import log_mel
from etude.audio.waveform import prepare_waveform
from etude.data.batches import TrackRow
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment, AudioStudy
from etude.export.onnx import export_onnx, write_metadata
from etude.inference.nearest import hear, library_vectors, nearest, weights_hash
from etude.sources.base import Track
from etude.systems.student_clap import StudentClap


def test_the_nearest_are_those_of_the_largest_cosine() -> None:
    generator = np.random.default_rng(0)
    candidates, others = generator.normal(size=(2, 30, 6)).astype(np.float32)
    vector = generator.normal(size=6).astype(np.float32)
    names = [f"track {i}" for i in range(30)]
    found = nearest("tracks", names, (vector, candidates), (3 * vector, others))
    for row, vectors in ((found.by_student, candidates), (found.by_teacher, others)):
        assert row is not None
        cosines = {
            name: float(v @ vector / np.linalg.norm(v) / np.linalg.norm(vector))
            for name, v in zip(names, vectors, strict=True)
        }
        expected = sorted(cosines, key=lambda name: -cosines[name])[:10]
        assert [name for name, _ in row] == expected
        assert [cosine for _, cosine in row] == pytest.approx([cosines[name] for name in expected], abs=1e-5)
    assert found.by_teacher is not None
    shared = {name for name, _ in found.by_student} & {name for name, _ in found.by_teacher}
    assert found.n_shared == len(shared)
    assert f"{len(shared)} of 10 are the same" in found.describe()
    assert nearest("tracks", names, (vector, candidates), (vector, 2 * candidates)).n_shared == 10


def test_two_of_one_name_are_still_two() -> None:
    vectors = np.eye(2, dtype=np.float32)
    found = nearest("tracks", ["same", "same"], (vectors[0], vectors), (vectors[1], vectors), k=1)
    assert found.n_shared == 0


def test_a_small_library_and_a_long_name_fit_the_table() -> None:
    vectors = np.eye(3, dtype=np.float32)
    names = ["a" * 200, "b", "c"]
    lines = nearest("tracks", names, (vectors[0], vectors), (vectors[0], vectors)).describe().splitlines()
    assert lines[0] == "the 3 nearest of 3 tracks, each with its cosine:"
    assert lines[-1] == "3 of 3 are the same"
    assert "1.000  aaaa" in lines[2] and "..." in lines[2]
    assert max(len(line) for line in lines) <= 110


def rows(system: StudentClap, wav: bytes, n: int) -> list[TrackRow]:
    mel = log_mel(prepare_waveform(decode(wav), system.recipe), system.recipe)
    none = np.zeros((len(mel), 1), np.float32)
    return [TrackRow(Track(f"t{i}", f"{i}.wav", f"Piece {i}"), mel, none, none[0]) for i in range(n)]


def test_the_librarys_vectors_are_computed_once(
    system: StudentClap, chorale_wav: bytes, tmp_path: Path
) -> None:
    mel_form = export_onnx(system.exports()[0], tmp_path)
    three = rows(system, chorale_wav, 3)
    vectors = library_vectors(mel_form, three[:2], tmp_path / "cache")
    with torch.inference_mode():
        mean = system.student(torch.from_numpy(three[0].mel.segments())).numpy().mean(axis=0)
    np.testing.assert_allclose(vectors, np.stack([mean, mean]), atol=1e-4)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    np.testing.assert_array_equal(library_vectors(mel_form, three[:2], tmp_path / "cache"), vectors)
    more = library_vectors(mel_form, three, tmp_path / "cache")
    np.testing.assert_array_equal(more[:2], vectors)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_a_student_is_known_again_by_its_weights(system: StudentClap, tmp_path: Path) -> None:
    path = export_onnx(system.exports()[0], tmp_path)
    known = weights_hash(path)
    model = onnx.load(path)
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(reversed(tensors))
    onnx.save(model, path)
    write_metadata(path, {"git_commit": "another"})
    assert weights_hash(path) == known
    write_metadata(path, {"recipe_id": "another"})
    assert weights_hash(path) != known
    write_metadata(path, {})
    array = numpy_helper.to_array(tensors[0]).copy()
    array.flat[0] += 1
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(array, tensors[0].name))
    onnx.save(model, path)
    assert weights_hash(path) != known


def test_a_teacher_of_stored_vectors_does_not_hear(chorale_wav: bytes, tmp_path: Path) -> None:
    stored = {"name": "stored", "provenance": "clap_htsat"}
    settings = AudioExperiment.model_validate({"home": tmp_path, "teacher": stored})
    study = AudioStudy(settings, cast(Any, None), cast(Any, None))
    path = tmp_path / "mine.wav"
    path.write_bytes(chorale_wav)
    assert hear(path, study).teacher is None
    with pytest.raises(UserError, match="cannot read"):
        hear(tmp_path / "nowhere.wav", study)
    vectors = np.eye(2, dtype=np.float32)
    said = nearest("tracks", ["a", "b"], (vectors[0], vectors), None).describe()
    assert "cannot hear a file" in said and "the same" not in said
