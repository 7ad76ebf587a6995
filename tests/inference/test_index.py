"""The nearest are those of the largest cosine, and a kept graph is used only for what it was built of."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from etude.evaluation.metrics import unit
from etude.inference import index as module
from etude.inference.index import Index, open_index
from etude.sources.base import Track


def tracks(n: int) -> list[Track]:
    return [Track(f"t-{i:04d}", f"{i}.wav", f"Track {i}") for i in range(n)]


def vectors(n: int, dim: int = 12, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def expected(vector: NDArray[np.float32], all_ND: NDArray[np.float32], k: int) -> list[int]:
    return [int(i) for i in np.argsort(-(unit(all_ND) @ unit(vector[None])[0]), kind="stable")[:k]]


def places(found: list[tuple[Track, float]]) -> list[int]:
    return [int(track.id.removeprefix("t-")) for track, _ in found]


def test_the_exact_search_is_exact(tmp_path: Path) -> None:
    library = vectors(300)
    index = open_index(tracks(300), 5 * library, tmp_path)
    for query in vectors(20, seed=1):
        found = index.search(query, 10)
        assert places(found) == expected(query, library, 10)
        best, cosine = found[0]
        row = library[int(best.id.removeprefix("t-"))]
        assert cosine == pytest.approx(row @ query / np.linalg.norm(row) / np.linalg.norm(query), abs=1e-5)
    assert not list(tmp_path.iterdir())  # nothing needs to be kept


def test_a_small_library_gives_what_it_has(tmp_path: Path) -> None:
    library = np.stack([vectors(1)[0]] * 3)
    found = open_index(tracks(3), library, tmp_path).search(library[0], 10)
    assert places(found) == [0, 1, 2]  # equal ones in the order of the library
    assert [cosine for _, cosine in found] == pytest.approx([1.0] * 3)


def test_a_track_is_found_by_its_id_and_nothing_else(tmp_path: Path) -> None:
    index = open_index(tracks(3), vectors(3), tmp_path)
    found = index.track("t-0001")
    assert found is not None and found.title == "Track 1"
    assert index.track("1.wav") is None
    assert len(index) == 3


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Graphs from 200 vectors on; counts how often one was built."""
    monkeypatch.setattr(module, "EXACT_UP_TO", 199)
    counts: list[int] = []
    build = module._build

    def counted(unit_ND, progress):  # type: ignore[no-untyped-def]
        counts.append(len(unit_ND))
        return build(unit_ND, progress)

    monkeypatch.setattr(module, "_build", counted)
    return counts


def recall(index: Index, library: NDArray[np.float32]) -> float:
    shares = [
        len(set(places(index.search(query, 10))) & set(expected(query, library, 10))) / 10
        for query in vectors(20, seed=1)
    ]
    return float(np.mean(shares))


def test_the_graph_finds_the_nearest_and_is_kept(tmp_path: Path, built: list[int]) -> None:
    library, seen = vectors(600), []
    index = open_index(
        tracks(600), library, tmp_path, lambda done, total, seconds: seen.append((done, total))
    )
    assert recall(index, library) > 0.9
    assert seen[-1] == (600, 600)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    again = open_index(tracks(600), library, tmp_path)
    assert built == [600]
    assert kept.stat().st_mtime_ns == written
    query = vectors(1, seed=3)[0]
    assert again.search(query, 10) == index.search(query, 10)


def test_a_changed_library_is_indexed_anew(tmp_path: Path, built: list[int]) -> None:
    library = vectors(300)
    open_index(tracks(300), library, tmp_path)
    fewer = open_index(tracks(300)[1:], library[1:], tmp_path)
    assert "t-0000" not in {track.id for track, _ in fewer.search(library[0], 299)}
    open_index(tracks(299), library[1:], tmp_path)  # the same vectors, other tracks
    open_index(tracks(299), vectors(299, seed=9), tmp_path)  # the same tracks, other vectors
    assert built == [300, 299, 299, 299]
    assert len(list(tmp_path.iterdir())) == 1  # the older ones are gone


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "another"])
def test_a_damaged_graph_is_built_anew(tmp_path: Path, built: list[int], damage: str) -> None:
    library = vectors(300)
    open_index(tracks(300), library, tmp_path)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    open_index(tracks(250), library[:250], tmp_path / "other")
    (another,) = (tmp_path / "other").iterdir()
    kept.write_bytes(
        {"empty": b"", "cut": whole[:-40], "noise": b"noise" * 99, "another": another.read_bytes()}[damage]
    )
    assert recall(open_index(tracks(300), library, tmp_path), library) > 0.9
    assert built == [300, 250, 300]
    assert kept.read_bytes() != b""
