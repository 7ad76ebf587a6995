"""Subsonic against supysonic, a real server, and against what other servers answer."""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mutagen
import pytest
from aiohttp import web
from pydantic import SecretStr

from etude.errors import OutOfReach, UserError
from etude.services.daemon import free_port
from etude.sources import http
from etude.sources.base import Track
from etude.sources.http import HttpConfig
from etude.sources.subsonic import SubsonicConfig, SubsonicSource
from tests.sources.test_folder import write
from tests.support.faults import KINDS, faults
from tests.support.fetching import fetch_all, fetch_item
from tests.support.serving import answering
from tests.support.subsonic_server import PASSWORD, USER, subsonic_server

QUICK = HttpConfig(attempts=5, timeout_s=4, total_timeout_s=30)
KEY = "5ecret-key"


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with 45 and 15 real FLAC files, each with bytes of its own."""
    root = tmp_path_factory.mktemp("subsonic")
    whole = write(root / "whole.flac").read_bytes()
    for i in range(60):
        path = root / ("Music" if i % 4 else "Other") / f"Album {i // 10}" / f"{i}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)
        tag(path, i)
    return root


def tag(path: Path, i: int) -> None:
    """Tags of its own, and with them a length of its own."""
    file = mutagen.File(path, easy=True)
    for name, value in {"title": f"Song {i}", "artist": "Bach", "album": f"Album {i // 10}"}.items():
        file[name] = value
    file["genre"], file["date"], file["description"] = "Baroque", "1741", "x" * i
    file.save()


@pytest.fixture(scope="module")
def port(music: Path) -> Iterator[int]:
    with subsonic_server(music / "state", music / "Music", music / "Other") as listening:
        yield listening


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off as always, only shorter."""
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.02)


def source(url: str, cache: Path | None = None, **settings: object) -> SubsonicSource:
    given = {"url": url, "user": USER, "password": PASSWORD, "plain_password": True, "http": QUICK} | settings
    return SubsonicSource(SubsonicConfig.model_validate(given), cache)


def digests(files: Sequence[bytes]) -> set[str]:
    return {hashlib.sha256(data).hexdigest() for data in files}


def on_disk(music: Path, *folders: str) -> set[str]:
    paths = [path for folder in folders for path in (music / folder).rglob("*.flac")]
    return digests([path.read_bytes() for path in paths])


def test_a_library_is_listed_and_fetched(music: Path, port: int) -> None:
    opened = source(f"http://127.0.0.1:{port}/")
    tracks = list(opened.tracks())
    assert len({track.id for track in tracks}) == 60
    assert digests(fetch_all(opened, tracks)) == on_disk(music, "Music", "Other")
    track = next(track for track in tracks if track.title == "Song 7")
    assert (track.artist, track.album) == ("Bach", "Album 0")
    assert track.tags == {"genre": "Baroque", "date": "1741"}
    assert track.n_bytes == (music / "Music" / "Album 0" / "7.flac").stat().st_size
    item = track.uri.rsplit("/", 1)[1]
    assert track.uri == f"subsonic://127.0.0.1:{port}/songs/{item}"
    assert digests([fetch_item(opened, item)]) == digests(
        [(music / "Music" / "Album 0" / "7.flac").read_bytes()]
    )
    assert [track.id for track in source(f"http://127.0.0.1:{port}").tracks()] == [
        track.id for track in tracks
    ]


def test_pages_and_albums_list_the_same(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    whole = {track.id for track in source(url).tracks()}
    monkeypatch.setattr("etude.sources.subsonic.PAGE_ITEMS", 7)
    assert {track.id for track in source(url).tracks()} == whole
    monkeypatch.setattr("etude.sources.subsonic.PAGE_ITEMS", 2)

    async def nothing(*args: Any) -> Any:  # how servers answer that know no empty search
        for _ in ():
            yield []

    monkeypatch.setattr(SubsonicSource, "_all_songs", nothing)
    assert {track.id for track in source(url).tracks()} == whole


def test_one_music_folder(music: Path, port: int) -> None:
    opened = source(f"http://127.0.0.1:{port}", library="other")
    assert digests(fetch_all(opened, list(opened.tracks()))) == on_disk(music, "Other")
    with pytest.raises(UserError, match="no music folder 'Films', but Music, Other"):
        list(source(f"http://127.0.0.1:{port}", library="Films").tracks())


def test_what_goes_wrong_at_the_start_is_one_sentence(port: int, tmp_path: Path) -> None:
    few = QUICK.model_copy(update={"attempts": 2})
    wrong = {
        "refuses the user name or password": source(f"http://127.0.0.1:{port}", password="wrong"),
        "no Subsonic server at .* check the address": source(f"http://127.0.0.1:{port}/nowhere"),
        "out of reach: .*no connection": source(f"http://127.0.0.1:{free_port()}", http=few),
    }
    for sentence, opened in wrong.items():
        with pytest.raises(UserError, match=sentence) as raised:
            list(opened.tracks())
        assert "\n" not in str(raised.value)
    (tmp_path / "empty").mkdir()
    with (
        subsonic_server(tmp_path / "state", tmp_path / "empty") as empty,
        pytest.raises(UserError, match="shows no song"),
    ):
        list(source(f"http://127.0.0.1:{empty}").tracks())


@pytest.mark.parametrize(
    "settings",
    [{"password": None}, {"api_key": "key"}, {"user": ""}, {"user": "", "password": None}],
)
def test_one_way_to_log_in(settings: dict[str, str | None]) -> None:
    with pytest.raises(UserError, match="either user and password or api_key"):
        source("http://127.0.0.1:1", **settings)


@pytest.mark.parametrize("what", ["user", "password", "api_key"])
def test_a_credential_with_a_line_end_is_refused_unseen(what: str) -> None:
    others = {"user": "", "password": None} if what == "api_key" else {}
    text = "5ecret\nrest"
    with pytest.raises(UserError, match="holds a line end") as raised:
        source("http://127.0.0.1:1", **others | {what: text if what == "user" else SecretStr(text)})
    assert "5ecret" not in str(raised.value)


def test_a_song_that_is_gone(music: Path, tmp_path: Path) -> None:
    shutil.copytree(music / "Other", tmp_path / "Other")
    with subsonic_server(tmp_path / "state", tmp_path / "Other") as port:
        opened = source(f"http://127.0.0.1:{port}")
        tracks = list(opened.tracks())
        for path in (tmp_path / "Other").rglob("*.flac"):
            path.unlink()
        with pytest.raises(OutOfReach):
            fetch_all(opened, tracks[:1])
        with pytest.raises(OutOfReach, match="no such song"):
            fetch_item(opened, "00000000-0000-0000-0000-000000000000")
        for item in ("../../etc/passwd", "", "a&u=root", "é"):
            with pytest.raises(OutOfReach):
                fetch_item(opened, item)


def test_with_one_request_in_twenty_failing_every_track_arrives(music: Path, port: int) -> None:
    whole = on_disk(music, "Music", "Other")
    with faults(port, share=0.05, seed=3) as proxy:
        opened = source(proxy.url)
        for _ in range(5):  # three hundred files, so that every kind of fault has its turn
            tracks = list(opened.tracks())
            assert len(tracks) == 60
            assert digests(fetch_all(opened, tracks)) == whole
    assert set(proxy.counts) == set(KINDS)
    assert 0.03 < proxy.counts.total() / proxy.n_requests < 0.07


# What Navidrome answers, written from the OpenSubsonic specification; only the log-in is played here.


def reply(**fields: Any) -> web.Response:
    status = "failed" if "error" in fields else "ok"
    return web.json_response({"subsonic-response": {"status": status, "version": "1.16.1"} | fields})


def test_tokens_are_salted_anew_and_the_password_stays_here() -> None:
    salts = []

    async def answer(request: web.Request) -> web.StreamResponse:
        query = request.query
        assert "p" not in query and PASSWORD not in str(request.url)
        token = hashlib.md5((PASSWORD + query["s"]).encode()).hexdigest()
        if (query["u"], query["t"], query["v"], query["c"]) != (USER, token, "1.16.1", "etude"):
            return reply(error={"code": 40})
        salts.append(query["s"])
        if request.path == "/rest/search3.view" and query["songOffset"] == "0":
            return reply(searchResult3={"song": [{"id": "a/../b", "title": "Aria", "size": 4}]})
        if request.path == "/rest/download.view":
            assert (query["id"], query["format"]) == ("a/../b", "raw")
            return web.Response(body=b"data", content_type="audio/flac")
        return reply(searchResult3={})

    with answering(answer) as url:
        opened = source(url)
        tracks = list(opened.tracks())
        assert fetch_all(opened, tracks) == [b"data"]
    assert len(salts) == len(set(salts)) >= 4
    assert tracks[0].uri.endswith("/songs/a%2F..%2Fb")


@pytest.mark.parametrize("code", [10, 30, 41, 42])
def test_the_password_is_sent_only_if_that_is_allowed(code: int) -> None:
    queries = []

    async def answer(request: web.Request) -> web.StreamResponse:
        queries.append(request.query)
        if "t" in request.query:
            return reply(error={"code": code})
        songs = [{"id": "a", "title": "Aria"}] if request.query.get("songOffset") == "0" else []
        return reply(searchResult3={"song": songs})

    with answering(answer) as url:
        with pytest.raises(UserError, match=rf"cannot check .* \(error {code}\): .*set plain_password"):
            list(source(url, plain_password=False).tracks())
        with pytest.raises(OutOfReach, match="set plain_password"):
            fetch_item(source(url, plain_password=False), "a")
        assert not any("p" in query for query in queries)
        assert [track.title for track in source(url).tracks()] == ["Aria"]
    assert queries[-1]["p"] == "enc:" + PASSWORD.encode().hex()
    assert SubsonicConfig(url="http://h").plain_password is False


@pytest.mark.parametrize("by_album", [False, True])
def test_a_server_that_knows_no_offset_is_not_listed_for_ever(
    by_album: bool, caplog: pytest.LogCaptureFixture
) -> None:
    songs = [{"id": str(i), "title": f"Song {i}"} for i in (1, 2, 2, 3)]

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/rest/getAlbum.view":
            return reply(album={"song": songs[int(request.query["id"]) :]})
        found = [] if by_album else songs
        return reply(searchResult3={"song": found}, albumList2={"album": [{"id": "0"}, {"id": "2"}]})

    with answering(answer) as url:
        assert [track.title for track in source(url).tracks()] == ["Song 1", "Song 2", "Song 3"]
    assert "repeats its first" in caplog.text


def test_an_api_key_goes_alone() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query["apiKey"] != KEY or {"u", "p", "t", "s"} & set(request.query):
            return reply(error={"code": 44})
        if request.path == "/rest/search3.view" and request.query["songOffset"] == "0":
            return reply(searchResult3={"song": [{"id": "a", "title": "Aria"}]})
        return reply()

    with answering(answer) as url:
        (track,) = source(url, user="", password=None, api_key=KEY).tracks()
        assert track.title == "Aria"
        with pytest.raises(UserError, match="refuses the API key"):
            list(source(url, user="", password=None, api_key="wrong").tracks())


def test_a_refused_api_key_is_no_matter_of_passwords(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return reply(error={"code": 42})

    with answering(answer) as url, pytest.raises(UserError, match="give another than the API key"):
        list(source(url, user="", password=None, api_key=KEY).tracks())
    assert not caplog.records


def test_an_older_server_names_its_version() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query["v"] != "1.14.0":
            return reply(error={"code": 30}, version="1.14.0")
        assert "t" in request.query
        songs = [{"id": "a", "title": "Aria"}] if request.query.get("songOffset") == "0" else []
        return reply(searchResult3={"song": songs})

    with answering(answer) as url:
        assert [track.title for track in source(url).tracks()] == ["Aria"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (40, "refuses the user name or password"),
        (41, "does not understand this log-in"),
        (50, "allow its user to download"),
        (60, "error 60"),
        (0, "error 0"),
    ],
)
def test_the_protocols_errors(code: int, sentence: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/rest/ping.view" and code != 41:
            return reply()
        return reply(error={"code": code, "message": f"{PASSWORD} is wrong"})

    song = Track("subsonic-1", "subsonic://h/songs/a", "Aria")
    with answering(answer) as url:
        with pytest.raises(UserError, match=sentence) as raised:
            list(source(url).tracks())
        with pytest.raises(OutOfReach, match=sentence) as out_of_reach:
            fetch_all(source(url), [song])
    assert PASSWORD not in str(raised.value) + str(out_of_reach.value)


@pytest.mark.parametrize("body", ["<html>log in</html>", '{"a": 1}', "[]", '{"subsonic-response": 3}'])
def test_no_subsonic_server(body: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(
            text=body, content_type="text/html" if body.startswith("<") else "application/json"
        )

    with answering(answer) as url, pytest.raises(UserError, match="there is no Subsonic server at"):
        list(source(url).tracks())


def test_no_secret_in_errors_logs_or_files(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    few = QUICK.model_copy(update={"attempts": 2, "timeout_s": 0.2})
    opened = source(f"http://127.0.0.1:{port}", tmp_path)
    tracks = list(opened.tracks())
    fetch_all(opened, tracks)
    texts = [repr(opened._config), repr(opened), opened.id, repr(tracks)]
    for kind in KINDS:
        with faults(port, share=1.0, kinds=[kind]) as proxy:
            for password in (PASSWORD, "5ecret but wrong"):
                broken = source(proxy.url, http=few, password=password)
                with pytest.raises(UserError) as raised:
                    list(broken.tracks())
                with pytest.raises(OutOfReach) as out_of_reach:
                    fetch_all(broken, tracks[:1])
                texts += [repr(raised.value), repr(out_of_reach.value)]
    said = "\n".join(texts) + caplog.text + " ".join(map(str, tmp_path.rglob("*")))
    for secret in ("5ecret", PASSWORD, PASSWORD.encode().hex()):
        assert secret not in said
    assert not re.search(r"[?&][tsp]=", said)
    assert b"5ecret" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
