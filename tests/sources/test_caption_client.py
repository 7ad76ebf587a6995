"""The client against a real server: see tests/support/chat_server.py, a stand-in without a model."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etude.errors import UserError
from etude.sources import caption_client
from etude.sources.base import Track
from etude.sources.caption_budget import Answers, Ledger, OverBudget
from etude.sources.caption_client import LanguageModel
from etude.sources.captions import Made, NoCaptions, OpenAICaptions, usable_captions
from etude.sources.facts import Facts, facts_of
from tests.support.chat_server import KEY, MODEL, ChatServer, chat_server, settings

TRACK = Track("t1", "file:///srv/music/secret/path.mp3", "Aria", "Bach", tags={"genre": "Baroque"})
FACTS = facts_of(TRACK)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def _no_key_in_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text


def ask(config: OpenAICaptions, folder: Path, n: int = 1, similar: tuple[Facts, ...] = ()) -> list[Any]:
    """What becomes of n tracks at a time: captions, or the error."""

    async def run() -> list[Any]:
        model = LanguageModel(config, Ledger(folder / "ledger.sqlite", config.budget_usd))
        tracks = [Track(f"t{i}", TRACK.uri, TRACK.title, TRACK.artist, tags=TRACK.tags) for i in range(n)]
        try:
            made = (model.make(track, facts_of(track), similar) for track in tracks)
            return await asyncio.gather(*made, return_exceptions=True)
        finally:
            await model.aclose()

    results = asyncio.run(run())
    assert KEY not in repr(results)
    assert KEY.encode() not in (folder / "ledger.sqlite").read_bytes()
    return results


def the_captions(made: Any) -> tuple[str, ...]:
    assert isinstance(made, Made), made
    assert usable_captions(made.captions) == (list(made.captions), [])
    return made.captions


def test_captions_come_in_one_request_which_tells_facts_and_no_path(tmp_path: Path) -> None:
    with chat_server() as server:
        other = Facts(title="Other title", genres=("Gigue",))
        (made,) = ask(settings(server, per_track=4), tmp_path, similar=(other,))
    assert len(the_captions(made)) == 4
    assert (made.maker, made.tokens_in, made.tokens_out) == (MODEL, server.tokens_in, server.tokens_out)
    (body,) = server.bodies
    assert body["response_format"]["type"] == "json_schema"
    assert body["temperature"] == 0.7
    said = str(body["messages"])
    assert "Baroque" in said
    assert "Gigue" in said
    assert "Other title" not in said
    assert "English" in said
    assert "secret" not in said
    assert KEY not in str(body)


@pytest.mark.parametrize(
    "kind", ["429", "500", "503", "malformed", "broken", "html", "length", "reset", "few", "odd"]
)
def test_what_goes_wrong_once_is_asked_again(kind: str, tmp_path: Path) -> None:
    with chat_server(lambda n, asked: kind if n == 0 else "") as server:
        (made,) = ask(settings(server), tmp_path)
    assert len(the_captions(made)) == 5
    assert server.n_requests == 2


def test_only_what_is_missing_is_asked_for_again(tmp_path: Path) -> None:
    with chat_server(lambda n, asked: "few" if n < 2 else "") as server:
        (made,) = ask(settings(server), tmp_path)
    assert len(the_captions(made)) == 5
    wanted = [body["messages"][1]["content"].split("captions_wanted")[1][3] for body in server.bodies]
    assert wanted == ["5", "4", "3"]
    assert "already_written" in server.bodies[1]["messages"][1]["content"]


def test_what_two_runs_at_a_time_were_both_given_counts_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", 1)
    told = ("A slow baroque aria.", "Baroque music for a voice.", "An aria for a quiet evening.")
    for _ in range(2):
        entry = ledger.reserve(0.01)
        assert entry is not None
        ledger.settle(entry, 0.01, "t0", FACTS.hash, Answers(told, 100, 30))
    with chat_server() as server:
        (made,) = ask(settings(server), tmp_path)
    assert the_captions(made)[:3] == told
    assert server.n_requests == 1


def test_prose_around_the_json_is_passed_over(tmp_path: Path) -> None:
    with chat_server(lambda n, asked: "prose") as server:
        assert len(the_captions(ask(settings(server), tmp_path)[0])) == 5


def test_retry_after_is_honoured_by_every_request(tmp_path: Path) -> None:
    with chat_server(lambda n, asked: "429" if n == 0 else "") as server:
        started = time.monotonic()
        results = ask(settings(server, concurrency=1), tmp_path, n=3)
    assert time.monotonic() - started >= 0.2
    assert all(len(the_captions(made)) == 5 for made in results)


@pytest.mark.parametrize(
    ("kind", "why", "n_requests"),
    [
        ("refusal", "refuses", 1),
        ("content_filter", "refuses", 1),
        ("413", "413", 1),
        ("malformed", "not the JSON", 3),
        ("broken", "not the JSON", 3),
        ("length", "max_tokens", 3),
        ("500", "500", 3),
        ("429", "429", 3),
        ("reset", "broke off", 3),
        ("odd", "1 of 5 captions", 3),
    ],
)
def test_a_track_that_never_gets_captions_has_a_reason(
    kind: str, why: str, n_requests: int, tmp_path: Path
) -> None:
    with chat_server(lambda n, asked: kind) as server:
        (error,) = ask(settings(server, attempts=3), tmp_path)
    assert isinstance(error, NoCaptions), error
    assert why in str(error)
    assert server.n_requests == n_requests


def test_an_answer_that_comes_too_late_counts_at_its_most(tmp_path: Path) -> None:
    with chat_server(lambda n, asked: "stall") as server:
        config = settings(server, timeout_s=2, attempts=2)
        (error,) = ask(config, tmp_path)
    assert isinstance(error, NoCaptions)
    assert "within 2 s" in str(error)
    spent = Ledger(tmp_path / "ledger.sqlite", 1).spent_usd
    assert spent >= config.usd(server.tokens_in, server.tokens_out) > 0


def test_a_server_without_structured_output_is_asked_without_and_remembered(tmp_path: Path) -> None:
    with chat_server(structured=False) as server:
        results = ask(settings(server, concurrency=1), tmp_path, n=3)
    assert all(len(the_captions(made)) == 5 for made in results)
    assert ["response_format" in body for body in server.bodies] == [True, False, False, False]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"key": "sk-wrong"}, ["OPENAI_API_KEY", "captions.key"]),
        ({"key": None}, ["OPENAI_API_KEY", "captions.key"]),
        ({"model": "gpt-0"}, ["captions.model", "gpt-0"]),
    ],
)
def test_a_wrong_key_or_model_ends_it_at_once(given: dict[str, Any], told: list[str], tmp_path: Path) -> None:
    with chat_server() as server:
        results = ask(settings(server, concurrency=2, **given), tmp_path, n=20)
    assert all(isinstance(error, UserError) for error in results)
    assert all(word in str(results[0]) for word in told)
    assert "sk-wrong" not in str(results)
    assert server.n_requests <= 2
    assert Ledger(tmp_path / "ledger.sqlite", 1).spent_usd == 0


def test_an_account_without_credit_and_a_server_that_is_not_there_end_it(tmp_path: Path) -> None:
    with chat_server(lambda n, asked: "no credit") as server:
        (error,) = ask(settings(server), tmp_path)
        gone = settings(server, attempts=2)
    assert isinstance(error, UserError)
    assert "credit" in str(error)
    (error,) = ask(gone, tmp_path)
    assert isinstance(error, UserError)
    assert "captions.base_url" in str(error)
    assert Ledger(tmp_path / "ledger.sqlite", 1).spent_usd == 0


def test_a_refused_temperature_names_the_setting(tmp_path: Path) -> None:
    with chat_server() as server:
        server.refuses = "temperature"
        (error,) = ask(settings(server), tmp_path)
        assert isinstance(error, UserError)
        assert "captions.temperature" in str(error)
        (made,) = ask(settings(server, temperature=None), tmp_path)
    assert len(the_captions(made)) == 5


@pytest.mark.parametrize("key", ["", "sk-\u00e9", "sk-\n"])
def test_a_key_that_cannot_be_sent_is_refused_before_anything_is(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"a{key}b" if key else "")
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        LanguageModel(OpenAICaptions(), Ledger(tmp_path / "ledger.sqlite", 1))
    assert not key or key not in str(caught.value)


def test_concurrency_and_pace_are_bounded(tmp_path: Path) -> None:
    with chat_server() as server:
        server.hold_s = 0.5  # long enough for a busy machine to have all three under way
        ask(settings(server, concurrency=3), tmp_path, n=7)
        assert server.most_under_way == 3
        server.hold_s = 0
        started = time.monotonic()
        config = settings(server, requests_per_minute=600)
        ask(config, tmp_path / "other", n=6)
    assert time.monotonic() - started >= 0.45


@pytest.mark.parametrize("usage", ["fair", "none", "most"])
def test_the_budget_is_never_exceeded(usage: str, tmp_path: Path) -> None:
    with chat_server(lambda n, asked: "few" if n % 3 == 0 else "", usage=usage) as server:
        config = settings(server, budget_usd=0.02, concurrency=8, max_tokens=500)
        results = ask(config, tmp_path, n=60)
        billed = config.usd(server.tokens_in, server.tokens_out)
        assert billed <= 0.02
        if usage != "none":  # where nothing is counted, four times as much is assumed
            assert billed >= 0.01, "most of it can be used"
        captioned = [made for made in results if isinstance(made, Made)]
        assert captioned
        assert any(isinstance(error, OverBudget) for error in results)
        n_before = server.n_requests
        again = ask(config, tmp_path, n=60)
    # What was paid for is answered without a request, and the rest still does not fit.
    assert sum(isinstance(made, Made) for made in again) >= len(captioned)
    assert server.n_requests == n_before


def test_without_a_budget_nothing_is_spent(tmp_path: Path) -> None:
    with chat_server() as server:
        (error,) = ask(settings(server, budget_usd=0), tmp_path)
        assert isinstance(error, OverBudget)
        assert server.n_requests == 0
        (made,) = ask(settings(server, budget_usd=0, input_usd=0, output_usd=0), tmp_path)
    assert len(the_captions(made)) == 5


def test_what_a_killed_run_had_asked_for_counts_at_its_most(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    assert Ledger(path, 1.0).reserve(0.9) is not None
    assert Ledger(path, 1.0).spent_usd == pytest.approx(0.9)
    assert Ledger(path, 1.0).reserve(0.2) is None


def test_a_track_of_which_nothing_is_known_costs_no_request(tmp_path: Path) -> None:
    async def run(server: ChatServer) -> None:
        model = LanguageModel(settings(server), Ledger(tmp_path / "ledger.sqlite", 1))
        await model.make(Track("x", "u", "01 Track"), Facts(title="01 Track"))

    with chat_server() as server:
        with pytest.raises(NoCaptions, match="tags"):
            asyncio.run(run(server))
        assert server.n_requests == 0
