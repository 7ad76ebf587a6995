"""Stored vectors as a teacher, from a real PostgreSQL."""

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import SecretStr

from etude.audio.decode import Audio, decode
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.errors import BadAudio, OutOfReach, UserError
from etude.sources.audiomuse import AudioMuseConfig, AudioMuseSource
from etude.sources.base import Track
from etude.sources.folder import FolderConfig
from etude.teachers.base import Teacher
from etude.teachers.clap import open_clap
from etude.teachers.musicnn import MusiCNN
from etude.teachers.stored import Provenance, StoredConfig, StoredTeacher, Table, unit
from etude.teachers.stored_evidence import CLAP_RECIPES, agreement, clap_vector, evidence
from tests.support.audiomuse_db import (
    PASSWORD,
    Analysed,
    Database,
    audiomuse_database,
    vector_bytes,
)

SILENCE = Audio(np.zeros(48_000 * 17, np.float32), 48_000)
SEGMENTS = segments_of(48_000 * 17, FeatureRecipe())


def track_of(item_id: str) -> Track:
    return Track("audiomuse-0", "audiomuse:x", "A title", tags={"item_id": item_id})


def config_of(
    database: Database, table: Table = "embedding", provenance: Provenance | None = None
) -> StoredConfig:
    return StoredConfig(dsn=SecretStr(database.dsn), table=table, provenance=provenance)


def sentence(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def test_a_stored_vector_is_the_target_of_track_and_segments(chorale_wav: bytes) -> None:
    audio = decode(chorale_wav)
    segments = segments_of(len(audio.resampled(48_000)), FeatureRecipe())
    heard = MusiCNN().embed(audio, segments).track
    database = audiomuse_database("december 2025", [Analysed("a", musicnn=heard.astype("<f4").tobytes())])
    teacher: Teacher = StoredTeacher(config_of(database))
    targets = teacher.embed(audio, segments, track_of("a"))
    np.testing.assert_array_equal(targets.track, heard)
    assert targets.segments.shape == (len(segments), 200)
    assert (targets.segments == heard).all()
    assert targets.segments.dtype == np.float32
    assert (teacher.dim, teacher.normalized) == (200, False)
    assert teacher.id.startswith("stored-embedding-musicnn-")


def test_clap_vectors_have_length_1() -> None:
    database = audiomuse_database("current", [Analysed("fp_1", clap=vector_bytes(1, 512))])
    teacher = StoredTeacher(config_of(database, "clap_embedding", "clap_htsat"))
    target = teacher.embed(SILENCE, SEGMENTS, track_of("fp_1")).track
    assert np.linalg.norm(target) == pytest.approx(1.0, abs=1e-6)
    stored = np.frombuffer(vector_bytes(1, 512), "<f4")
    assert target @ stored / np.linalg.norm(stored) == pytest.approx(1.0, abs=1e-6)
    assert (teacher.dim, teacher.normalized) == (512, True)


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1e30, 3e38])
def test_the_size_of_a_stored_vector_does_not_matter(size: float) -> None:
    vector = np.full(512, size, "<f4").tobytes()
    database = audiomuse_database("current", [Analysed("fp_1", clap=vector)])
    teacher = StoredTeacher(config_of(database, "clap_embedding", "clap_htsat"))
    np.testing.assert_allclose(teacher.vector(track_of("fp_1")), 512**-0.5, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_cannot_have_length_1_is_bad_audio(value: float) -> None:
    with pytest.raises(BadAudio, match="length 1"), np.errstate(invalid="ignore"):
        unit(np.full(512, value, np.float32))


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (vector_bytes(0, 200)[:-1], "has 799 bytes instead of 800"),
        (b"", "has 0 bytes instead of 800"),
        (np.full(200, np.nan, "<f4").tobytes(), "is not finite"),
        (np.full(200, np.inf, "<f4").tobytes(), "is not finite"),
        (bytes(800), "is zero"),
    ],
)
def test_a_vector_that_cannot_serve_is_bad_audio(vector: bytes, reason: str) -> None:
    rows = [Analysed("bad", musicnn=vector), Analysed("good", musicnn=vector_bytes(0, 200))]
    teacher = StoredTeacher(config_of(audiomuse_database("december 2025", rows)))
    with pytest.raises(BadAudio, match=f"its stored vector {reason}"):
        teacher.embed(SILENCE, SEGMENTS, track_of("bad"))
    assert teacher.embed(SILENCE, SEGMENTS, track_of("good")).track.any()


def test_a_track_without_a_vector_is_bad_audio() -> None:
    database = audiomuse_database(
        "december 2025", [Analysed("a", musicnn=vector_bytes(0, 200)), Analysed("b")]
    )
    database.execute("INSERT INTO embedding (item_id, embedding) VALUES ('b', NULL)")
    teacher = StoredTeacher(config_of(database))
    with pytest.raises(BadAudio, match="its stored vector is missing"):
        teacher.vector(track_of("b"))
    with pytest.raises(BadAudio, match="it has no row in embedding"):
        teacher.vector(track_of("'; DROP TABLE score; --"))
    with pytest.raises(UserError, match=r"set source\.name to audiomuse"):
        teacher.vector(Track("folder-1", "file:///x", "X"))


def test_the_provenance_must_be_stated() -> None:
    database = audiomuse_database("december 2025", [Analysed("a", clap=vector_bytes(0, 512))])
    said = sentence(lambda: StoredTeacher(config_of(database, "clap_embedding")))
    assert "--teacher.provenance clap_htsat or clap_student" in said
    assert "jobs/doctor.py" in said
    assert "does not hold vectors of musicnn" in sentence(
        lambda: StoredTeacher(config_of(database, "clap_embedding", "musicnn"))
    )
    assert "does not hold vectors of clap_htsat" in sentence(
        lambda: StoredTeacher(config_of(database, "embedding", "clap_htsat"))
    )


def test_the_id_follows_the_vectors() -> None:
    rows = [Analysed("a", musicnn=vector_bytes(0, 200)), Analysed("b", musicnn=vector_bytes(1, 200))]
    database = audiomuse_database("december 2025", rows)
    first = StoredTeacher(config_of(database)).id
    assert StoredTeacher(config_of(database)).id == first
    assert StoredTeacher(config_of(audiomuse_database("current", reversed(rows)))).id == first
    database.execute(
        "UPDATE embedding e SET embedding = o.embedding FROM embedding o WHERE o.item_id <> e.item_id"
    )
    swapped = StoredTeacher(config_of(database)).id
    database.add([Analysed("c", musicnn=vector_bytes(2, 200))])
    assert len({first, swapped, StoredTeacher(config_of(database)).id}) == 3


def test_the_table_is_missing_or_empty() -> None:
    database = audiomuse_database("december 2025", [Analysed("a")])
    assert "holds no vectors" in sentence(lambda: StoredTeacher(config_of(database)))
    database.execute("DROP TABLE embedding")
    assert "has no table embedding" in sentence(lambda: StoredTeacher(config_of(database)))


def test_it_travels_without_its_connection_and_without_asking_again() -> None:
    database = audiomuse_database("december 2025", [Analysed("a", musicnn=vector_bytes(0, 200))])
    teacher = StoredTeacher(config_of(database))
    vector = teacher.vector(track_of("a"))
    database.add([Analysed("b", musicnn=vector_bytes(1, 200))])
    copy: StoredTeacher = pickle.loads(pickle.dumps(teacher))
    np.testing.assert_array_equal(copy.vector(track_of("a")), vector)
    assert copy.id == teacher.id  # the driver's: the vectors have grown since
    pinned = config_of(Database("gone", 1)).model_copy(update={"version": teacher.version})
    assert StoredTeacher(pinned).id == teacher.id
    with pytest.raises(OutOfReach, match="cannot be reached") as caught:
        StoredTeacher(pinned).vector(track_of("a"))
    assert PASSWORD not in str(caught.value)


def test_a_connection_that_was_closed_is_opened_again() -> None:
    database = audiomuse_database("december 2025", [Analysed("a", musicnn=vector_bytes(0, 200))])
    teacher = StoredTeacher(config_of(database))
    for _ in range(2):
        assert teacher.vector(track_of("a")).any()
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    teacher.close()
    assert teacher.vector(track_of("a")).any()
    teacher.close()


def test_a_table_that_goes_midway_is_out_of_reach() -> None:
    database = audiomuse_database("december 2025", [Analysed("a", musicnn=vector_bytes(0, 200))])
    teacher = StoredTeacher(config_of(database))
    assert teacher.vector(track_of("a")).any()
    database.execute("ALTER TABLE embedding RENAME TO away")
    with pytest.raises(OutOfReach, match='"embedding" does not exist') as caught:
        teacher.vector(track_of("a"))
    assert PASSWORD not in str(caught.value)
    database.execute("ALTER TABLE away RENAME TO embedding")
    assert teacher.vector(track_of("a")).any()
    teacher.close()


def test_evidence_tells_counts_dates_and_lengths() -> None:
    rows = [Analysed("a", musicnn=vector_bytes(0, 200), clap=vector_bytes(0, 512, unit=True))]
    rows += [
        Analysed("b", clap=vector_bytes(1, 512, unit=True)),
        Analysed("c", clap=vector_bytes(2, 512)[:5]),
    ]
    database = audiomuse_database("current", rows)
    database.execute("UPDATE score SET created_at = '2025-12-24' WHERE item_id = 'a'")
    said = evidence(SecretStr(database.dsn))
    assert "embedding: 1 rows, 1 with a vector" in said
    assert "clap_embedding: 3 rows, 3 with a vector" in said
    assert "clap_embedding: 1 of 3 looked at are damaged" in said
    assert any(line.startswith("clap_embedding: 100% of 2 vectors have length 1") for line in said)
    assert any(line.startswith("embedding: 0% of 1 vectors have length 1") for line in said)
    (dates,) = [line for line in said if line.startswith("dates:")]
    assert "between 2025-12-24 and" in dates
    assert "1 of 3 before 2026-03-10" in dates
    old = evidence(SecretStr(audiomuse_database("december 2025", rows).dsn))
    assert "dates: this schema has none" in old


@pytest.fixture
def random_clap(tmp_path: Path) -> Path:
    """A file of CLAP's shape whose answers mean nothing: the mean over the frames, times random numbers."""
    weights = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["mel_spectrogram", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
    ]
    tensors = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
    ]
    graph = helper.make_graph(
        nodes,
        "random_clap",
        [helper.make_tensor_value_info("mel_spectrogram", TensorProto.FLOAT, ["batch", 1, "frames", 64])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 512])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "random_clap.onnx")
    return tmp_path / "random_clap.onnx"


def test_agreement_recognises_the_file_that_wrote_the_vectors(
    random_clap: Path, chorale_wav: bytes, tmp_path: Path
) -> None:

    (tmp_path / "a.wav").write_bytes(chorale_wav)
    opened = open_clap(random_clap)
    name, recipe = next(iter(CLAP_RECIPES.items()))
    vector = clap_vector(opened, chorale_wav, recipe).astype("<f4").tobytes()
    rows = [
        Analysed("right", clap=vector, file_path="a.wav"),
        Analysed("wrong", clap=vector_bytes(0, 512, unit=True), file_path="a.wav"),
        Analysed("gone", clap=vector, file_path="gone.wav"),
    ]
    database = audiomuse_database("current", rows)
    teacher = StoredTeacher(config_of(database, "clap_embedding", "clap_htsat"))
    source = AudioMuseSource(AudioMuseConfig(dsn=SecretStr(database.dsn), audio=FolderConfig(path=tmp_path)))
    tracks = list(source.tracks())
    found = {one.front_end: one for one in asyncio.run(agreement(teacher, random_clap, source, tracks))}
    assert sorted(found) == sorted(CLAP_RECIPES)
    least, most = sorted(found[name].cosines)
    assert least < 0.5
    assert most == pytest.approx(1.0, abs=1e-5)
    assert "on 2 tracks" in str(found[name])
    assert "no track" in str(asyncio.run(agreement(teacher, random_clap, source, []))[0])


def test_a_file_that_is_not_claps_is_refused(random_clap: Path, tmp_path: Path) -> None:
    database = audiomuse_database("december 2025", [Analysed("a", clap=vector_bytes(0, 512))])
    teacher = StoredTeacher(config_of(database, "clap_embedding", "clap_student"))
    source = AudioMuseSource(AudioMuseConfig(dsn=SecretStr(database.dsn), audio=FolderConfig(path=tmp_path)))
    (tmp_path / "nonsense.onnx").write_bytes(b"nonsense")
    assert "cannot be opened" in sentence(
        lambda: asyncio.run(agreement(teacher, tmp_path / "nonsense.onnx", source, []))
    )
    model = onnx.load(random_clap)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 128
    del model.graph.node[:]
    model.graph.node.add(op_type="Identity", input=["weights"], output=["embedding"])
    onnx.save(model, tmp_path / "other.onnx")
    assert "not mel_spectrogram" in sentence(
        lambda: asyncio.run(agreement(teacher, tmp_path / "other.onnx", source, []))
    )
