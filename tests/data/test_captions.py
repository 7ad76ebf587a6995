import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etude.data import captions as captions_module
from etude.data.caption_plan import plan_captions
from etude.data.captions import CaptionReport, captions_part, prepare_captions, read_captions
from etude.data.store import Store
from etude.errors import UserError
from etude.sources import caption_client
from etude.sources.base import Track
from etude.sources.captions import CaptionConfig, OwnCaptions, TemplateCaptions, usable_captions
from tests.support.chat_server import KEY, MODEL, chat_server, settings

SILENT = Track("silent", "file:///srv/x.mp3", "01 Track")
REPOSITORY = Path(__file__).resolve().parents[2]


def library(n: int) -> list[Track]:
    genres = ("Rock", "Jazz", "Folk")
    return [
        Track(f"t{i}", f"file:///srv/secret/{i}.mp3", f"Song {i}", tags={"genre": genres[i % 3], "bpm": "70"})
        for i in range(n)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(captions_module, "BATCH_TRACKS", 4)


def prepare(
    store: Store, tracks: Sequence[Track], config: CaptionConfig, tmp_path: Path, **given: Any
) -> CaptionReport:
    return prepare_captions(store, tracks, config, tmp_path / "cache", lambda done, total: None, **given)


def test_templates_fill_the_store_and_a_second_run_does_nothing(store: Store, tmp_path: Path) -> None:
    tracks, config = [*library(10), SILENT], TemplateCaptions()
    steps: list[tuple[int, int]] = []
    report = prepare_captions(store, tracks, config, tmp_path, lambda *step: steps.append(step))
    assert (report.made, report.found, len(report.quarantined)) == (10, 0, 1)
    assert "tags" in report.quarantined[0].reason
    assert steps[-1] == (11, 11)
    read = read_captions(store, config, tracks)
    assert set(read) == {track.id for track in tracks} - {"silent"}
    assert all(usable_captions(found) == (list(found), []) and len(found) == 5 for found in read.values())
    again = prepare(store, tracks, config, tmp_path)
    assert (again.made, again.found, len(again.quarantined)) == (0, 10, 1)
    assert read_captions(store, TemplateCaptions(seed=1), tracks) == {}
    assert list(read_captions(store, config, tracks[:2])) == ["t0", "t1"]


def test_a_track_whose_facts_change_is_made_anew_and_leaves_quarantine(store: Store, tmp_path: Path) -> None:
    tracks, config = [*library(5), SILENT], TemplateCaptions()
    prepare(store, tracks, config, tmp_path)
    before = read_captions(store, config, tracks)
    tracks[0] = replace(tracks[0], tags={"genre": "Opera"})
    tracks[-1] = replace(SILENT, tags={"genre": "Polka"})
    plan = plan_captions(store, tracks, config)
    assert {track.id for track in plan.todo} == {"t0", "silent"}
    report = prepare(store, tracks, config, tmp_path)
    assert (report.made, report.found, report.quarantined) == (2, 4, [])
    after = read_captions(store, config, tracks)
    assert "Opera" in " ".join(after["t0"])
    assert "Polka" in " ".join(after["silent"])
    assert {i: after[i] for i in ("t1", "t2", "t3", "t4")} == {i: before[i] for i in ("t1", "t2", "t3", "t4")}
    assert store.quarantined(captions_part(config)) == {}


def test_captions_that_came_with_the_music_are_read_and_nothing_is_made(store: Store, tmp_path: Path) -> None:
    tracks, config = library(3), OwnCaptions()
    tracks[0] = replace(tracks[0], captions=("A slow piece.", "a SLOW piece.", "", " "))
    tracks[1] = replace(tracks[1], captions=("曲 " * 100, "静かな曲"))
    plan = plan_captions(store, tracks, config)
    plan.check(config)
    assert plan.describe() == "captions came with 2 tracks, 1 have none"
    report = prepare(store, tracks, config, tmp_path)
    assert (report.made, report.found, [row.track_id for row in report.quarantined]) == (0, 2, ["t2"])
    assert report.quarantined[0].reason == "it came without captions"
    assert read_captions(store, config, tracks) == {
        "t0": ("A slow piece.",),
        "t1": (("曲 " * 100).strip(), "静かな曲"),
    }
    assert store.quarantined(captions_part(config)) == {}
    tracks[2] = replace(tracks[2], captions=("Another piece.",))  # the source says more now
    assert prepare(store, tracks, config, tmp_path).quarantined == []


def test_music_that_came_without_captions_is_refused_before_it_is_heard(store: Store) -> None:
    with pytest.raises(UserError, match=r"none of the 3 tracks came with captions: set captions\.name"):
        plan_captions(store, library(3), OwnCaptions()).check(OwnCaptions())


def test_a_model_makes_what_is_missing_and_a_second_run_asks_nothing(store: Store, tmp_path: Path) -> None:
    tracks = library(9)
    with chat_server() as server:
        config = settings(server)
        similar = {"t0": ("t1", "gone", "t2")}
        report = prepare(store, tracks, config, tmp_path, similar=similar)
        assert (report.made, report.requests) == (9, 9)
        assert report.spent_usd == pytest.approx(config.usd(server.tokens_in, server.tokens_out))
        prompts = [body["messages"][1]["content"] for body in server.bodies]
        assert sum("sounding_alike" in prompt for prompt in prompts) == 1
        again = prepare(store, [*tracks, SILENT], config, tmp_path)
        assert (again.found, again.requests, len(again.quarantined)) == (9, 0, 1)
        # Another folder for costs: what the store holds counts all the same.
        other = prepare(store, [*tracks, SILENT], config, tmp_path / "other", again=True)
        assert other.spent_usd == pytest.approx(report.spent_usd)
        assert other.quarantined[0].attempts == 2
        assert server.n_requests == 9
    rows = store.read_shard(
        captions_part(config), next(iter(store.committed(captions_part(config)).values()))
    )
    assert set(rows["maker"].to_pylist()) == {MODEL}
    assert all(tokens > 0 for tokens in rows["tokens_in"].to_pylist())


def test_whatever_goes_wrong_every_track_has_captions_or_a_reason(store: Store, tmp_path: Path) -> None:
    kinds = ["", "429", "500", "malformed", "", "few", "stall", "html", "", "odd", "broken", "reset", "prose"]
    bad = {"Jazz": "refusal"}

    def behave(n: int, asked: dict[str, Any]) -> str:
        return bad.get(asked["track"]["genres"][0], kinds[n % len(kinds)])

    tracks = library(24)
    with chat_server(behave, structured=False) as server:
        config = settings(server, attempts=16, concurrency=8, timeout_s=1.0)
        report = prepare(store, tracks, config, tmp_path)
        assert set(server.behaviours) == {*kinds, "refusal"}
        n_requests = server.n_requests
        refused = {row.track_id for row in report.quarantined}
        assert {f"t{i}" for i in range(1, 24, 3)} <= refused
        read = read_captions(store, config, tracks)
        assert set(read) == {track.id for track in tracks} - refused
        assert len(read) >= 14
        assert all(usable_captions(found) == (list(found), []) and len(found) == 5 for found in read.values())
        assert prepare(store, tracks, config, tmp_path).requests == 0
        assert server.n_requests == n_requests
        # Once the server does as it should, those in quarantine can be tried again.
        server.behave = lambda n, asked: ""
        assert prepare(store, tracks, config, tmp_path, again=True).quarantined == []
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_spent_budget_keeps_what_was_paid_for(store: Store, tmp_path: Path) -> None:
    tracks = library(30)
    with chat_server(usage="most") as server:
        config = settings(server, budget_usd=0.02, max_tokens=500, concurrency=4)
        with pytest.raises(
            UserError, match=r"of 0.02 US dollars, [1-9]\d* of 30 tracks .* captions.budget_usd"
        ):
            prepare(store, tracks, config, tmp_path)
        assert config.usd(server.tokens_in, server.tokens_out) <= 0.02
        n = len(read_captions(store, config, tracks))
        assert n == server.n_requests
        with pytest.raises(UserError, match=f"{n} of 30"):
            prepare(store, tracks, config, tmp_path)
        assert server.n_requests == n
        richer = config.model_copy(update={"budget_usd": 1.0})
        report = prepare(store, tracks, richer, tmp_path)
        assert (report.found, report.made, server.n_requests) == (n, 30 - n, 30)


def test_a_refused_key_stops_the_run_and_stores_nothing_as_a_caption(store: Store, tmp_path: Path) -> None:
    with chat_server() as server:
        config = settings(server, key="sk-wrong")
        with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
            prepare(store, library(9), config, tmp_path)
    assert "sk-wrong" not in str(caught.value)
    assert read_captions(store, config, library(9)) == {}
    assert store.quarantined(captions_part(config)) == {}


def test_the_plan_says_what_it_would_cost_and_asks_nobody(store: Store, tmp_path: Path) -> None:
    tracks = [*library(24), SILENT]
    with chat_server() as server:
        config = settings(server)
        plan = plan_captions(store, tracks, config)
        short = plan_captions(store, tracks, poor := config.model_copy(update={"budget_usd": 0.0}))
        prepare(store, library(24), config, tmp_path)
        billed = config.usd(server.tokens_in, server.tokens_out)
    assert len(plan.todo) == 25
    assert plan.usd == pytest.approx(billed, rel=0.5)
    assert f"{plan.usd:.2f} US dollars" in plan.describe()
    assert "may not suffice" not in plan.describe()
    plan.check(config)
    assert short.describe().endswith("captions.budget_usd is 0, which may not suffice")
    with pytest.raises(UserError, match=r"captions\.budget_usd is 0"):
        short.check(poor)
    plan_captions(store, library(24), poor).check(poor)  # all are there: nothing is asked
    free = plan_captions(store, tracks, TemplateCaptions())
    assert "25 tracks" in free.describe()
    assert "dollars" not in free.describe()


def test_a_track_named_twice_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        prepare(store, library(2) * 2, TemplateCaptions(), tmp_path)
    with pytest.raises(ValueError, match="twice"):
        prepare(store, library(2) * 2, OwnCaptions(), tmp_path)


KILLED = """
import sys
from pathlib import Path
from etude.data import captions
from etude.data.store import Store
from tests.data.test_captions import library
from etude.sources.captions import OpenAICaptions
captions.BATCH_TRACKS = 4
home, url = Path(sys.argv[1]), sys.argv[2]
config = OpenAICaptions(
    base_url=url, model="stand-in-1", input_usd=1, output_usd=2, budget_usd=1, concurrency=2
)
def progress(done, total):
    print(done, flush=True)
captions.prepare_captions(Store(home / "store"), library(40), config, home / "cache", progress)
"""


@pytest.mark.slow
def test_sigkill_costs_no_answer(store: Store, tmp_path: Path) -> None:
    environment = os.environ | {"OPENAI_API_KEY": KEY, "PYTHONPATH": f"{REPOSITORY}/platform:{REPOSITORY}"}
    with chat_server() as server:
        server.hold_s = 0.05
        arguments = [sys.executable, "-c", KILLED, str(tmp_path), server.url]
        with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) >= 10:
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
        config = settings(server, concurrency=2)
        tracks, n_before = library(40), server.n_requests
        assert 8 <= len(read_captions(store, config, tracks)) < 40
        report = prepare(store, tracks, config, tmp_path)
        assert report.found + report.made == 40
        # Only what was under way when it was killed is asked for twice.
        assert server.n_requests <= 40 + 2
        assert report.requests <= 40 - n_before + 2
        assert config.usd(server.tokens_in, server.tokens_out) <= report.spent_usd
