"""A plan finds what is missing, writes nothing, and never holds a library's tracks at once."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from etude.audio.recipe import FeatureRecipe
from etude.config import load
from etude.data import catalogue
from etude.data.catalogue import Catalogue, track_of
from etude.data.plan import FEATURE_BYTES_A_SECOND, TARGET_BYTES_A_SECOND, TYPICAL_S, Plan, compare, plan
from etude.data.store import Quarantined, Store, features_part, targets_part
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import prepare_job
from etude.sources import FolderConfig
from etude.sources.base import Track
from etude.teachers import MusiCNNConfig

RECIPE = FeatureRecipe()
FEATURES, TARGETS = PARTS = features_part(RECIPE), targets_part("made-up-0", RECIPE)
OTHER = targets_part("made-up-1", RECIPE)
THREE = (*PARTS, OTHER)


class Listed:
    """A source that lists these tracks."""

    id = "listed"

    def __init__(self, *tracks: Track) -> None:
        self.listed = tracks

    def tracks(self) -> Iterator[Track]:
        yield from self.listed

    async def fetch(self, track: Track) -> bytes:
        raise FileNotFoundError(track.uri)

    async def aclose(self) -> None:
        pass


def track(name: str, duration_s: float | None = 60.0) -> Track:
    return Track(name, f"file:{name}", name.upper(), duration_s=duration_s, tags={"key": "C"})


def commit(store: Store, part: str, *ids: str) -> None:
    store.write_shard(part, pa.table({"track_id": list(ids)}))


def missing(planned: Plan) -> list[tuple[str, bool, ...]]:
    """Track, whether its features are needed, and for each teacher whether its targets are."""
    rows = pa.concat_tables(planned.items(planned.missing)).to_pylist()
    return [(row["track_id"], row["need_features"], *row["need_targets"]) for row in rows]


def test_each_track_is_missing_both_one_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, FEATURES, "a", "b")
    commit(store, TARGETS, "a", "gone from the library")
    planned = compare(Listed(*map(track, "abc")), store, PARTS, RECIPE.id, again=False)
    assert missing(planned) == [("b", False, True), ("c", True, True)]
    assert (planned.todo, planned.found, planned.seconds) == (2, 1, 120.0)
    first = next(planned.items(planned.missing)).to_pylist()[0]
    assert track_of(first["track"]) == track("b")


def test_what_is_in_quarantine_is_left_alone_unless_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bad = {name: Quarantined(name, "u", "t", "decode", "empty file", 2) for name in ("a", "not listed")}
    store.write_quarantine(RECIPE.id, bad.values())
    source = Listed(*map(track, "ab"))
    planned = compare(source, store, PARTS, RECIPE.id, again=False)
    assert missing(planned) == [("b", True, True)]
    assert (planned.quarantined, planned.found) == ({"a": bad["a"]}, 0)
    assert planned.again == {RECIPE.id: {}, TARGETS: {}}
    planned = compare(source, store, PARTS, RECIPE.id, again=True)
    assert [row[0] for row in missing(planned)] == ["a", "b"]
    assert (planned.quarantined, planned.found) == ({}, 0)
    assert planned.again == {RECIPE.id: {"a": bad["a"]}, TARGETS: {}}


def test_what_one_teacher_cannot_use_says_nothing_about_another(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_quarantine(TARGETS, [Quarantined("c", "u", "t", "teacher", "its stored vector is zero")])
    other_teacher = (FEATURES, "targets/another/x")
    assert compare(Listed(track("c")), store, PARTS, RECIPE.id, again=False).todo == 0
    assert compare(Listed(track("c")), store, other_teacher, RECIPE.id, again=False).todo == 1


def test_each_teacher_lacks_what_it_lacks(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, FEATURES, "a", "b", "c")
    commit(store, TARGETS, "a", "b")
    commit(store, OTHER, "a", "c")
    planned = compare(Listed(*map(track, "abcd")), store, THREE, RECIPE.id, again=False)
    assert missing(planned) == [
        ("b", False, False, True),
        ("c", False, True, False),
        ("d", True, True, True),
    ]
    assert (planned.todo, planned.found, planned.seconds) == (3, 1, 180.0)
    assert planned.n_bytes == 60 * FEATURE_BYTES_A_SECOND + 4 * 60 * TARGET_BYTES_A_SECOND


def test_a_teacher_that_cannot_use_a_track_keeps_it_from_no_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    refused = {name: Quarantined(name, "u", "t", "teacher", "too short") for name in "bcd"}
    store.write_quarantine(RECIPE.id, [Quarantined("a", "u", "t", "decode", "empty file")])
    store.write_quarantine(TARGETS, [refused["b"], refused["d"]])
    store.write_quarantine(OTHER, [refused["c"], refused["d"]])
    planned = compare(Listed(*map(track, "abcde")), store, THREE, RECIPE.id, again=False)
    assert missing(planned) == [
        ("b", True, False, True),
        ("c", True, True, False),
        ("e", True, True, True),
    ]
    assert (set(planned.quarantined), planned.found) == ({"a", "b", "d"}, 0)
    assert planned.refused == {OTHER: {"c": refused["c"], "d": refused["d"]}}
    assert "in quarantine: 3, 2 times for another teacher" in planned.describe(2)
    again = compare(Listed(*map(track, "abcde")), store, THREE, RECIPE.id, again=True)
    assert {row[1:] for row in missing(again)} == {(True, True, True)}
    assert {place: set(rows) for place, rows in again.again.items()} == {
        RECIPE.id: {"a"}, TARGETS: {"b", "d"}, OTHER: {"c", "d"},
    }  # fmt: skip
    assert (again.quarantined, again.refused, again.found) == ({}, {OTHER: {}}, 0)


def test_a_track_prepared_for_another_teacher_stays_in_quarantine(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_quarantine(TARGETS, [Quarantined("a", "u", "t", "teacher", "too short")])
    commit(store, FEATURES, "a", "b")
    commit(store, TARGETS, "b")
    commit(store, OTHER, "a", "b")
    planned = compare(Listed(*map(track, "ab")), store, THREE, RECIPE.id, again=False)
    assert (planned.todo, planned.found, len(planned.quarantined)) == (0, 1, 1)


def test_tries_are_those_of_the_teacher_or_of_the_audio(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_quarantine(TARGETS, [Quarantined("a", "u", "t", "teacher", "too short", 3)])
    store.write_quarantine(RECIPE.id, [Quarantined("b", "u", "t", "decode", "empty file", 5)])
    planned = compare(Listed(*map(track, "ab")), store, THREE, RECIPE.id, again=True)
    assert [planned.tries(place, "a") for place in (RECIPE.id, TARGETS, OTHER)] == [4, 4, 1]
    assert [planned.tries(place, "b") for place in (RECIPE.id, TARGETS, OTHER)] == [6, 6, 6]


def test_audio_is_fetched_only_for_what_listens(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, FEATURES, "a", "b", "c")
    commit(store, OTHER, "b")
    planned = compare(Listed(*map(track, "abcd")), store, THREE, RECIPE.id, again=False, stored={TARGETS})
    assert planned.heard.tolist() == [True, False, True, True]
    assert planned.recalled.tolist() == [False, True, False, False]
    first = compare(Listed(*map(track, "ab")), store, THREE, RECIPE.id, again=False, stored=THREE[1:])
    assert first.recalled.tolist() == [True, True]


def test_a_job_has_a_teacher_and_none_twice(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"not read here")
    source = FolderConfig(name="folder", path=tmp_path)
    job = prepare_job(AudioExperiment(home=tmp_path / "home", source=source))
    with pytest.raises(ValueError, match="name at least one"):
        replace(job, teachers=())
    with pytest.raises(UserError, match="two of the teachers are the same, msd_musicnn-8579734e: take one"):
        plan(replace(job, teachers=(MusiCNNConfig(), MusiCNNConfig())))


def test_more_teachers_are_a_setting(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path), "--prepare.also", '[{"name": "mtt_musicnn"}]']
    job = prepare_job(load(AudioExperiment, words))
    assert job.teachers == (MusiCNNConfig(), MusiCNNConfig(name="mtt_musicnn"))
    file = tmp_path / "more.yaml"
    file.write_text("prepare:\n  also:\n    - name: mtt_musicnn\n")
    assert prepare_job(load(AudioExperiment, [*words[:2], "--config", str(file)])).teachers == job.teachers


def test_what_is_known_without_listening_costs_neither_time_nor_room(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, FEATURES, "a", "b")
    listed = Listed(*map(track, "abc"))
    heard = compare(listed, store, PARTS, RECIPE.id, again=False)
    known = compare(listed, store, PARTS, RECIPE.id, again=False, stored={TARGETS})
    assert (heard.todo, heard.seconds) == (3, 180.0)
    assert (known.todo, known.seconds) == (3, 60.0)
    assert known.recalled.tolist() == [True, True, False]
    assert known.n_bytes == 60 * FEATURE_BYTES_A_SECOND + 180 * TARGET_BYTES_A_SECOND


def test_heavy_vectors_need_the_room_they_take(tmp_path: Path) -> None:
    listed = Listed(*map(track, "ab"))
    usual = compare(listed, Store(tmp_path), THREE, RECIPE.id, again=False)
    heavy = compare(listed, Store(tmp_path), THREE, RECIPE.id, again=False, target_bytes={OTHER: 20_480})
    assert heavy.n_bytes - usual.n_bytes == 120 * (20_480 - TARGET_BYTES_A_SECOND)


def test_a_length_that_is_not_known_is_guessed_and_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    some = compare(Listed(track("a", 100), track("b", None)), store, PARTS, RECIPE.id, again=False)
    assert some.seconds == 200
    assert "the length of 1 tracks is a guess" in some.describe(2)
    none = compare(Listed(track("a", None)), store, PARTS, RECIPE.id, again=False)
    assert none.seconds == TYPICAL_S
    known = compare(Listed(track("a")), store, PARTS, RECIPE.id, again=False)
    assert "guess" not in known.describe(2)


def test_a_source_without_tracks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="listed has no tracks"):
        compare(Listed(), Store(tmp_path), PARTS, RECIPE.id, again=False)


def test_a_plan_tells_tracks_hours_bytes_and_time_and_writes_nothing(tmp_path: Path) -> None:
    library = tmp_path / "music"
    library.mkdir()
    for name in ("a", "b"):
        (library / f"{name}.mp3").write_bytes(b"not read here")
    home = tmp_path / "home"
    planned = plan(prepare_job(AudioExperiment(home=home, source=FolderConfig(name="folder", path=library))))
    assert "library: 2 tracks" in planned.describe(2)
    assert "to prepare: 2 tracks" in planned.describe(2)
    assert "GB, about" in planned.describe(2)
    assert not home.exists()


def test_a_listing_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the source lists, no more tracks live than those of two batches."""
    monkeypatch.setattr(catalogue, "BATCH_TRACKS", 10)
    alive: weakref.WeakSet[Track] = weakref.WeakSet()
    most = 0

    def listing() -> Iterator[Track]:
        nonlocal most
        for number in range(95):
            one = Identified(f"{number:03d}", "u", "t")
            alive.add(one)
            most = max(most, len(alive))
            yield one

    listed = Catalogue.of(listing())
    assert len(listed) == 95
    assert [found.id for found in listed] == [f"{number:03d}" for number in range(95)]
    assert most <= 2 * 10 + 1


class Identified(Track):
    """A track that a set knows by identity, since tags cannot be hashed."""

    __hash__ = object.__hash__
