"""AudioMuse-AI's catalogue in both of its schemas, read from a real PostgreSQL."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from etude.errors import BadAudio, OutOfReach, UserError
from etude.sources.audiomuse import Analysis, AudioMuseConfig, AudioMuseSource, parse_scores
from etude.sources.audiomuse_coverage import coverage
from etude.sources.base import Source, Track
from etude.sources.folder import FolderConfig
from etude.sources.jellyfin import JellyfinConfig
from etude.sources.subsonic import SubsonicConfig
from tests.support.audiomuse_db import PASSWORD, READER, Analysed, Database, audiomuse_database
from tests.support.jellyfin_server import API_KEY, Song, jellyfin_stub

ITEMS = ["a" * 32, "b" * 32]
JELLYFIN = JellyfinConfig(url="http://127.0.0.1:1", token=SecretStr("a-token"))
LABEL = st.text(
    st.characters(exclude_characters=":,", exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=12
)


def source_of(
    database: Database, *, folder: Path | None = None, server: str = "", mounted_at: str = ""
) -> AudioMuseSource:
    audio = FolderConfig(path=folder) if folder else JELLYFIN
    config = AudioMuseConfig(
        dsn=SecretStr(database.dsn_of(READER)), audio=audio, server=server, mounted_at=mounted_at
    )
    return AudioMuseSource(config)


def provider_ids(source: AudioMuseSource) -> list[str]:
    return [track.tags["provider_id"] for track in source.tracks()]


def sentence(act: Callable[[], object]) -> str:
    """What a user is told: one sentence without the password."""
    with pytest.raises(UserError) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    assert PASSWORD not in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


def test_ids_of_december_2025_are_the_servers_own() -> None:
    database = audiomuse_database("december 2025", [Analysed("b" * 32, title="Aria"), Analysed("a" * 32)])
    source: Source = source_of(database)
    first, second = source.tracks()
    assert [first.tags["provider_id"], second.tags["provider_id"]] == ["a" * 32, "b" * 32]
    assert (second.title, second.artist, second.album) == ("Aria", "An artist", "")
    assert second.duration_s is None
    assert second.id.startswith("audiomuse-")
    assert "b" * 32 not in second.id


def test_fingerprints_are_mapped_to_the_default_server_and_one_item_of_several() -> None:
    row = Analysed(
        "fp_2" + "0" * 50,
        album="Suites",
        album_artist="A band",
        duration=61.2,
        year=1999,
        provider_ids={"home": ["item-9", "item-1"], "away": ["elsewhere"]},
    )
    database = audiomuse_database("current", [row])
    (track,) = source_of(database).tracks()
    assert track.tags["provider_id"] == "item-1"
    assert (track.artist, track.album, track.duration_s) == ("A band", "Suites", 61.2)
    assert track.tags["author"] == "An artist"
    analysis = Analysis.of(track.tags)
    assert analysis.moods == {"rock": 0.56, "pop": 0.538}
    assert analysis.features == {"danceable": 0.62, "sad": 0.1}
    assert (analysis.tempo, analysis.energy, analysis.key, analysis.scale) == (120.0, 0.25, "C", "major")
    assert analysis.year == 1999
    assert provider_ids(source_of(database, server="away")) == ["elsewhere"]


def test_old_and_new_ids_in_one_database(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        Analysed("fp_a", provider_ids={"home": ["mapped"]}),
        Analysed("fp_b"),  # on no server
        Analysed("fp_c", provider_ids={"away": ["elsewhere"]}),
        Analysed("c" * 32),  # not migrated
        Analysed("d" * 32, provider_ids={"home": ["migrated"]}),
    ]
    source = source_of(audiomuse_database("current", rows))
    with caplog.at_level(logging.WARNING):
        assert sorted(provider_ids(source)) == ["c" * 32, "mapped", "migrated"]
    assert list(source.skipped.values()) == [2]
    assert "the media server has no item for them: 2 of" in caplog.text
    assert PASSWORD not in caplog.text
    assert len(provider_ids(source)) == 3
    assert list(source.skipped.values()) == [2]  # counted anew


def test_ids_are_safe_stable_and_follow_the_audio() -> None:
    hostile = "../../etc/passwd"
    database = audiomuse_database("current", [Analysed(hostile, duration=10.0), Analysed("fp_x")])
    database.execute("INSERT INTO track_server_map VALUES ('fp_x', 'home', '../../etc/shadow')")
    source = source_of(database)
    before = {track.tags["item_id"]: track.id for track in source.tracks()}
    assert all(set(name) <= set("audiomuse-0123456789abcdef") for name in before.values())
    for track in source.tracks():
        with pytest.raises(BadAudio):
            asyncio.run(source.fetch(track))
    database.execute("UPDATE score SET title = 'Another', duration = 20.0")
    after = {track.tags["item_id"]: track.id for track in source.tracks()}
    assert before["fp_x"] == after["fp_x"]
    assert before[hostile] != after[hostile]


def test_only_a_fingerprint_names_the_same_track_in_two_libraries() -> None:
    rows = [Analysed("1234"), Analysed("fp_1", provider_ids={"home": ["5678"]})]
    first, second = audiomuse_database("current", rows), audiomuse_database("current", rows)
    config = AudioMuseConfig(dsn=SecretStr(first.dsn), audio=JELLYFIN)
    elsewhere = config.model_copy(update={"audio": JELLYFIN.model_copy(update={"url": "http://127.0.0.1:2"})})
    other = config.model_copy(update={"dsn": SecretStr(second.dsn)})
    ids = [{track.id for track in AudioMuseSource(one).tracks()} for one in (config, elsewhere, other)]
    (shared,) = set.intersection(*ids)
    (fingerprint,) = (t.id for t in source_of(first).tracks() if t.tags["item_id"] == "fp_1")
    assert shared == fingerprint
    assert len(set.union(*ids)) == 4


def test_streaming_gives_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.sources.audiomuse.ROWS_AT_ONCE", 7)
    database = audiomuse_database("december 2025", [Analysed(f"{i:032x}") for i in range(50)])
    ids = provider_ids(source_of(database))
    assert ids == sorted(set(ids))
    assert len(ids) == 50
    next(iter(source_of(database).tracks()))  # a listing that is not finished holds nothing
    database.execute("ALTER TABLE score ADD later TEXT")


def test_malformed_text_leaves_the_field_empty_and_is_counted() -> None:
    rows = [
        Analysed("a", moods="rock:0.5;pop:0.4"),
        Analysed("b", moods="rock:nan", features="sad"),
        Analysed("c", moods=None, features=""),
    ]
    source = source_of(audiomuse_database("december 2025", rows))
    tracks = list(source.tracks())
    assert [dict(Analysis.of(track.tags).moods) for track in tracks] == [{}, {}, {}]
    assert sorted(source.skipped.values()) == [1, 2]
    assert "rows with unreadable moods, which is left empty" in source.skipped
    assert tracks[0].tags["moods"] == "rock:0.5;pop:0.4"


@given(st.dictionaries(LABEL, st.floats(0, 1), min_size=1, max_size=6))
def test_scores_are_read_as_they_were_written(scores: dict[str, float]) -> None:
    text = ",".join(f"{label}:{value:.3f}" for label, value in scores.items())
    assert parse_scores(text) == {label: float(f"{value:.3f}") for label, value in scores.items()}


@given(st.text(max_size=40))
def test_any_other_text_is_refused_or_read_whole(text: str) -> None:
    try:
        scores = parse_scores(text)
    except ValueError:
        return
    assert [f"{label}:" in text for label in scores] == [True] * len(scores)
    assert len(scores) == text.count(",") + 1 == text.count(":")


@pytest.mark.parametrize(
    "text",
    ["rock", "rock:", ":0.5", "rock:0.5,", "rock:nan", "rock:1e3", "a:1,a:2", "a:1, b:2", "a:" + "9" * 400],
)
def test_malformed_scores(text: str) -> None:
    with pytest.raises(ValueError):
        parse_scores(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "music" / "Album").mkdir(parents=True)
    (tmp_path / "music" / "Album" / "a.flac").write_bytes(b"audio of a")
    (tmp_path / "music" / "b.flac").write_bytes(b"audio of b")
    (tmp_path / "secret.flac").write_bytes(b"not yours")
    return tmp_path / "music"


def test_a_folder_can_hold_the_audio(folder: Path) -> None:
    rows = [
        Analysed("fp_1", file_path="/data/Album/a.flac"),
        Analysed("fp_2", file_path=str(folder / "b.flac")),
        Analysed("fp_3", file_path="b.flac"),
        Analysed("fp_4", file_path="/data/../secret.flac"),
        Analysed("fp_5", file_path="/elsewhere/a.flac"),
        Analysed("fp_6", file_path="/data/gone.flac"),
        Analysed("fp_7"),
    ]
    source = source_of(audiomuse_database("current", rows), folder=folder, mounted_at="/data")
    tracks = {track.tags["item_id"]: track for track in source.tracks()}
    assert list(source.skipped.values()) == [1]

    def fetch(item_id: str) -> bytes:
        return asyncio.run(source.fetch(tracks[item_id]))

    assert fetch("fp_1") == b"audio of a"
    assert fetch("fp_2") == fetch("fp_3") == b"audio of b"
    with pytest.raises(BadAudio, match="leaves the folder"):
        fetch("fp_4")
    with pytest.raises(OutOfReach, match=r"set source\.mounted_at"):
        fetch("fp_5")
    with pytest.raises(OutOfReach, match="there is no file"):
        fetch("fp_6")


def test_a_wrong_mount_shows_as_files_without_rows(folder: Path, tmp_path: Path) -> None:
    database = audiomuse_database("current", [Analysed("fp_1", file_path="/data/b.flac")])
    config = AudioMuseConfig(dsn=SecretStr(database.dsn), audio=FolderConfig(path=folder), mounted_at="/x")
    assert coverage(config, tmp_path)[1].startswith("1 rows have no audio: /data/b.flac")


def test_the_path_of_the_chosen_server_goes_first(folder: Path) -> None:
    database = audiomuse_database("current", [Analysed("fp_1", file_path="b.flac")])
    database.execute("INSERT INTO track_server_map VALUES ('fp_1', 'home', 'x', NULL, 'Album/a.flac')")
    source = source_of(database, folder=folder)
    (track,) = source.tracks()
    assert asyncio.run(source.fetch(track)) == b"audio of a"


def test_fetching_asks_the_media_server_for_its_own_id(tmp_path: Path) -> None:
    rows = [
        Analysed("fp_1", provider_ids={"home": [ITEMS[0]]}),
        Analysed("fp_2", provider_ids={"home": ["0" * 32]}),
    ]
    database = audiomuse_database("current", rows)
    with jellyfin_stub([Song(id, f"audio of {id}".encode()) for id in ITEMS]) as server:
        audio = JellyfinConfig(url=server.url, token=SecretStr(API_KEY))
        config = AudioMuseConfig(dsn=SecretStr(database.dsn), audio=audio)
        source = AudioMuseSource(config, tmp_path)

        async def fetch_all() -> bytes:
            there, gone = source.tracks()
            try:
                with pytest.raises(OutOfReach, match="has no item"):
                    await source.fetch(gone)
                return await source.fetch(there)
            finally:
                await source.aclose()

        assert asyncio.run(fetch_all()) == f"audio of {ITEMS[0]}".encode()
        both, rows_only, audio_only = coverage(config, tmp_path)
    assert both.startswith("1 tracks have both")
    assert rows_only.startswith(f"1 rows have no audio: {'0' * 32}")
    assert audio_only.startswith(f"1 files have no row: {ITEMS[1]}")


def test_what_only_one_side_has_is_said(folder: Path, tmp_path: Path) -> None:
    rows = [
        Analysed("fp_1", file_path="b.flac"),
        Analysed("fp_2", file_path="gone.flac"),
        Analysed("fp_3", file_path="../secret.flac"),
        Analysed("fp_4"),
    ]
    database = audiomuse_database("current", rows)
    config = AudioMuseConfig(dsn=SecretStr(database.dsn), audio=FolderConfig(path=folder))
    both, rows_only, audio_only, skipped = coverage(config, tmp_path)
    assert both.startswith("1 tracks have both")
    assert rows_only.startswith("2 rows have no audio")
    assert audio_only.startswith("1 files have no row")
    assert "a.flac" in audio_only
    assert skipped.startswith("1 rows without audio")


def test_sources_are_told_apart_and_name_no_secret(tmp_path: Path) -> None:
    database = audiomuse_database("december 2025", [Analysed("a")])
    ids = {
        source_of(database).id,
        source_of(database, folder=tmp_path).id,
        source_of(database, server="x").id,
    }
    assert len(ids) == 3
    other = database.dsn.replace(PASSWORD, "Another")
    assert AudioMuseSource(AudioMuseConfig(dsn=SecretStr(other), audio=JELLYFIN)).id == source_of(database).id
    assert PASSWORD not in repr(AudioMuseConfig(dsn=SecretStr(database.dsn), audio=JELLYFIN))


def listing(dsn: str, server: str = "") -> Callable[[], list[Track]]:
    config = AudioMuseConfig(dsn=SecretStr(dsn), audio=JELLYFIN, server=server)
    return lambda: list(AudioMuseSource(config).tracks())


def test_there_is_no_way_in() -> None:
    database = audiomuse_database("december 2025", [Analysed("a")])
    said = sentence(listing(database.dsn_of(READER, "Wrong")))
    assert "does not let reader in" in said
    assert "Wrong" not in said
    gone = Database("gone", database.port)
    assert "there is no database gone on 127.0.0.1" in sentence(listing(gone.dsn))
    assert "cannot be reached" in sentence(listing(Database(database.name, 1).dsn))
    assert "is not known here" in sentence(listing(database.dsn.replace("127.0.0.1", "nowhere.invalid")))


@pytest.mark.parametrize(
    "dsn",
    [
        f"{PASSWORD} is no DSN",
        f"postgresql://u:a@{PASSWORD}@host/db",
        f"postgresql://u:a/{PASSWORD}@host/db",
        f"postgresql://u:{PASSWORD}/x@host/db",
        f"postgresql://u:{PASSWORD}%zz@host/db",
        f"postgresql://u:{PASSWORD}@host/db?colour=red",
    ],
)
def test_a_dsn_that_cannot_be_read_is_not_repeated(dsn: str) -> None:
    assert "the DSN cannot be read" in sentence(listing(dsn))


def test_it_is_not_audiomuses_database() -> None:
    database = audiomuse_database("december 2025")
    assert "no track" in sentence(listing(database.dsn))
    database.execute("REVOKE SELECT ON score FROM reader")
    assert "no table score that reader may read" in sentence(listing(database.dsn_of(READER)))
    database.execute("ALTER TABLE score DROP COLUMN author")
    assert "unknown version of it" in sentence(listing(database.dsn))
    database.execute("DROP TABLE score CASCADE")
    assert "has no table score" in sentence(listing(database.dsn))


def test_the_server_is_not_there() -> None:
    database = audiomuse_database("current", [Analysed("fp_1", provider_ids={"home": ["x"]})])
    said = sentence(listing(database.dsn, server="attic"))
    assert "no server attic" in said
    assert "away (Away), home (Home)" in said
    database.execute("UPDATE music_servers SET is_default = false")
    assert "no default server" in sentence(listing(database.dsn))
    old = audiomuse_database("december 2025", [Analysed("a")])
    assert "leave out source.server" in sentence(listing(old.dsn, server="home"))


def test_the_audio_must_be_of_the_server_that_audiomuse_knows(tmp_path: Path) -> None:
    rows = [Analysed("fp_1", provider_ids={"home": ["x"]}, file_path="a.flac")]
    database = audiomuse_database("current", rows, server_type="Navidrome")
    said = sentence(listing(database.dsn))
    assert "server home is navidrome, and source.audio.name is jellyfin" in said
    subsonic = SubsonicConfig(url="http://127.0.0.1:1", user="u", password=SecretStr("p"))
    for audio in (subsonic, FolderConfig(path=tmp_path)):
        config = AudioMuseConfig(dsn=SecretStr(database.dsn), audio=audio)
        assert len(list(AudioMuseSource(config).tracks())) == 1
    database.execute("UPDATE music_servers SET server_type = 'emby'")
    assert "is emby" in sentence(listing(database.dsn))
    database.execute("UPDATE music_servers SET server_type = 'of tomorrow'")
    assert len(listing(database.dsn)()) == 1


def test_no_row_has_audio() -> None:
    database = audiomuse_database("current", [Analysed("fp_1"), Analysed("fp_2")])
    assert "rows without audio, because the media server has no item for them: 2" in sentence(
        listing(database.dsn)
    )


def test_a_connection_that_breaks_is_said() -> None:
    database = audiomuse_database("december 2025", [Analysed(f"{i:04d}") for i in range(3000)])

    def broken() -> None:
        tracks = AudioMuseSource(AudioMuseConfig(dsn=SecretStr(database.dsn), audio=JELLYFIN)).tracks()
        next(tracks)
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'etude'"
        )
        list(tracks)

    assert "broke: run the same command again" in sentence(broken)
