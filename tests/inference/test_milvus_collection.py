"""Milvus finds what NumPy finds, and readers see whole libraries of their own model only."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from etude.errors import UserError
from etude.inference.milvus import Milvus, MilvusConfig, open_milvus
from etude.inference.milvus_collection import MOST_DIMS, fill, open_collection
from tests.support.milvus_server import exact, tracks, vectors


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[Milvus]:
    with open_milvus(MilvusConfig(), tmp_path) as milvus:
        yield milvus


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def fillings(milvus: Milvus) -> list[str]:
    return list(milvus.client.list_collections())


def test_the_nearest_are_those_of_numpy(milvus: Milvus) -> None:
    library, seen = vectors(500), []
    collection = fill(
        milvus, "a", tracks(500), 3 * library, "m", progress=lambda done, total, s: seen.append((done, total))
    )
    for query in vectors(20, seed=1):
        found, wanted = collection.search(query, 10), exact(query, library, 10)
        assert [track_id for track_id, _ in found] == [track_id for track_id, _ in wanted]
        np.testing.assert_allclose([c for _, c in found], [c for _, c in wanted], atol=1e-5)
    assert len(collection) == 500
    assert seen[-1] == (500, 500)


def test_a_small_library_gives_what_it_has_and_equal_ones_in_order(milvus: Milvus) -> None:
    library = np.repeat(vectors(3), 12, axis=0)[np.random.default_rng(0).permutation(36)]
    collection = fill(milvus, "a", tracks(36), library, "m")
    for k in (5, 20, 36, 50):
        found = [track_id for track_id, _ in collection.search(library[0], k)]
        assert found == [track_id for track_id, _ in exact(library[0], library, k)]


def test_the_same_again_does_nothing_and_other_contents_replace_all(milvus: Milvus) -> None:
    library, sent = vectors(40), []

    def fill_again(n: int, rows: np.ndarray, model_id: str = "m") -> int:
        sent.clear()
        fill(milvus, "a", tracks(n), rows, model_id, progress=lambda done, total, s: sent.append(done))
        assert len(fillings(milvus)) == 1
        return len(sent)

    assert fill_again(40, library)
    first = fillings(milvus)
    assert not fill_again(40, library.copy())
    assert fillings(milvus) == first
    assert fill_again(39, library[1:])  # a track less
    assert fill_again(39, library[:39])  # other vectors
    assert fill_again(39, library[:39], "n")  # another model
    assert fill_again(39, vectors(39, dim=8), "n")  # of another width
    found = open_collection(milvus, "a", "n").search(vectors(39, dim=8)[7], 1)
    assert found == [("t-0007", pytest.approx(1.0, abs=1e-5))]
    milvus.client.delete("a", ids=["t-0003"])  # by someone else
    assert fill_again(39, vectors(39, dim=8), "n")
    assert len(open_collection(milvus, "a", "n")) == 39


def test_vectors_of_another_model_are_never_compared(milvus: Milvus) -> None:
    of_muq = fill(milvus, "a", tracks(20), vectors(20), 'muq "1"')
    fill(milvus, "b", tracks(20), vectors(20), "mert")
    assert of_muq.search(vectors(1)[0], 3)
    with pytest.raises(UserError, match=r'holds vectors of muq "1", .* those of mert: search the library'):
        open_collection(milvus, "a", "mert")
    with pytest.raises(UserError, match=r"there is no collection c in .*: search the library once"):
        open_collection(milvus, "c", "mert")
    for dim in (24, 8):  # it may well be as wide
        fill(milvus, "a", tracks(20), vectors(20, dim), "mert")
        with pytest.raises(UserError, match="holds vectors of mert"):
            of_muq.search(vectors(1)[0], 3)


def test_what_milvus_cannot_hold_is_refused_and_the_old_stays(milvus: Milvus) -> None:
    before = fill(milvus, "a", tracks(20), vectors(20), "m")
    kept = fillings(milvus)
    damaged = vectors(20)
    damaged[13, 2] = np.nan
    named = tracks(20)
    named[5] = named[5].__class__("t" * 513, "x.wav", "x")
    for rows, values, model_id, said in [
        (tracks(20), damaged, "m", "no number"),
        (
            tracks(2),
            np.ones((2, MOST_DIMS + 1), np.float32),
            "m",
            "32,769 numbers are more than Milvus takes",
        ),
        (named, vectors(20), "m", "track id ttt.* longer than the 512 bytes"),
        (tracks(20), vectors(20), "é" * 129, "model id .* longer than the 256 bytes"),
        ([], vectors(0), "m", "there are no tracks"),
    ]:
        with pytest.raises(UserError, match=said):
            fill(milvus, "a", rows, values, model_id)
        assert len(before.search(vectors(1)[0], 30)) == 20
        assert fillings(milvus) == kept


def test_a_collection_of_someone_elses_is_left_alone(milvus: Milvus) -> None:
    milvus.client.create_collection("a", dimension=4)
    with pytest.raises(UserError, match="has a collection a that was not filled here"):
        fill(milvus, "a", tracks(20), vectors(20), "m")
    assert fillings(milvus) == ["a"]


def test_whoever_reads_meanwhile_sees_the_old(milvus: Milvus) -> None:
    old, new = vectors(2500), vectors(2400, seed=1)
    query, seen = vectors(1, seed=2)[0], []
    reader = fill(milvus, "a", tracks(2500), old, "m")
    fill(
        milvus,
        "a",
        tracks(2400),
        new,
        "m",
        progress=lambda *counts: seen.append((len(reader), reader.search(query, 5))),
    )
    assert len(seen) == 3
    for count, found in [seen[0], seen[-1]]:
        assert (count, [one for one, _ in found]) == (2500, [one for one, _ in exact(query, old, 5)])
    assert len(reader) == 2400
    assert [one for one, _ in reader.search(query, 5)] == [one for one, _ in exact(query, new, 5)]


def _fill_and_wait(folder: Path, temporary: Path, pipe: Connection) -> None:
    """In a process of its own: fill, say what that did to it, then stop in the middle of filling anew."""
    tempfile.tempdir = str(temporary)  # whoever is killed leaves its socket there
    os.environ["MILVUS_URI"] = "nonsense"
    before = dict(os.environ)
    milvus = open_milvus(MilvusConfig(), folder)
    fill(milvus, "a", tracks(1500), vectors(1500), "m")
    pipe.send((dict(os.environ) == before, milvus.client.list_collections()))

    def stop(done: int, total: int, seconds: float) -> None:
        pipe.send((done, total))
        pipe.recv()

    fill(milvus, "a", tracks(2500), vectors(2500, seed=1), "m", progress=stop)


@pytest.mark.slow
def test_a_killed_filling_leaves_the_old_and_is_made_good(
    tmp_path: Path, short_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = multiprocessing.get_context("spawn")
    pipe, its_end = context.Pipe()
    process = context.Process(target=_fill_and_wait, args=(tmp_path, short_folder, its_end))
    process.start()
    assert pipe.poll(60)
    unchanged, (first,) = pipe.recv()
    assert unchanged
    assert pipe.poll(60)
    assert pipe.recv() == (1000, 2500)
    with pytest.raises(UserError, match="is open already, and an embedded database serves one command"):
        open_milvus(MilvusConfig(), tmp_path)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert capfd.readouterr() == ("", "")

    query = vectors(1, seed=2)[0]
    with open_milvus(MilvusConfig(), tmp_path) as milvus:
        assert len(fillings(milvus)) == 2  # the killed one's half as well
        reader = open_collection(milvus, "a", "m")
        assert len(reader) == 1500
        assert [one for one, _ in reader.search(query, 5)] == [
            one for one, _ in exact(query, vectors(1500), 5)
        ]
        collection = fill(milvus, "a", tracks(2500), vectors(2500, seed=1), "m")
        (left,) = fillings(milvus)
        assert left != first
        assert len(collection) == 2500
        ids = [one for one, _ in collection.search(query, 2500)]
        assert len(set(ids)) == len(ids) == 2500


@pytest.mark.slow
def test_a_command_may_end_without_closing_and_says_nothing(tmp_path: Path, short_folder: Path) -> None:
    code = f"""
import contextlib, logging
from pathlib import Path
logging.basicConfig(level=logging.WARNING)  # as all jobs do
from etude.errors import UserError
from etude.inference.milvus import MilvusConfig, open_milvus
from etude.inference.milvus_collection import fill
from tests.support.milvus_server import tracks, vectors
milvus = open_milvus(MilvusConfig(), Path({str(tmp_path)!r}))
fill(milvus, "a", tracks(50), vectors(50), "m")
with contextlib.suppress(UserError), milvus.told("describe what is not there"):
    milvus.client.describe_collection("b")
"""
    repository = Path(__file__).resolve().parents[2]
    env = os.environ | {"PYTHONPATH": f"{repository}:{repository / 'platform'}", "TMPDIR": str(short_folder)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=400)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not list(short_folder.iterdir())
    with open_milvus(MilvusConfig(), tmp_path) as milvus:
        assert len(open_collection(milvus, "a", "m")) == 50
