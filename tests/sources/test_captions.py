from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from etude.config import Settings, load, mask, save, without_secrets
from etude.sources.captions import (
    CaptionConfig,
    OpenAICaptions,
    OwnCaptions,
    TemplateCaptions,
    caption_fault,
    own_captions,
    usable_captions,
)

KEY = "sk-5ecret"


@pytest.mark.parametrize(
    "text",
    [
        "Slow piano music",
        "Une pièce lente pour flûte et violoncelle",  # another language in Latin letters cannot be told
        "A waltz by Dvořák, in 3/4 time — “wistful” & warm",
        " ".join(["word"] * 40),
        "A long and slow tune sung in the style of 演歌",
    ],
)
def test_captions(text: str) -> None:
    assert caption_fault(text) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Slow music", "2 words"),
        ("", "0 words"),
        ("- - - -", "0 words"),
        (" ".join(["word"] * 41), "41 words"),
        ("one line\nand another", "line break"),
        ("a bell \x07 rings", "control"),
        ("turned \u202e round text", "control"),
        ("Медленная музыка для флейты", "not Latin"),
        ("静かな ピアノ 曲", "not Latin"),
        ("1 2 3 4", "not Latin"),
    ],
)
def test_texts_that_are_none(text: str, why: str) -> None:
    assert why in caption_fault(text)


def test_repetitions_are_left_out_whatever_their_capitals_and_punctuation() -> None:
    good, faults = usable_captions(
        ["  A slow   piece. ", "a SLOW piece!", "Another piece, fast", 5, None], known=["Another piece: fast"]
    )
    assert good == ["A slow piece."]
    assert len(faults) == 4


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(), st.none(), st.integers(), st.from_regex(r"[a-z ]{0,60}"))))
def test_what_is_let_pass_is_valid_and_passes_again(texts: list[object]) -> None:
    good, faults = usable_captions(texts)
    assert len(good) + len(faults) == len(texts)
    assert usable_captions(good) == (good, [])
    assert usable_captions(good, good)[0] == []
    for caption in good:
        assert "\n" not in caption
        assert len(caption.split()) >= 3


def test_captions_that_came_with_music_may_be_long_and_in_any_script() -> None:
    texts = [" A\nlong  one: " + "word " * 60, "静かな曲", "कि", "की", "Slow", "SLOW", "...", "", 5, None]
    assert own_captions(texts) == ("A long one: " + "word " * 59 + "word", "静かな曲", "कि", "की", "Slow")


@given(st.lists(st.one_of(st.text(), st.none(), st.integers())))
def test_own_captions_are_clean_and_stay_as_they_are(texts: list[object]) -> None:
    found = own_captions(texts)
    assert own_captions(found) == found
    assert all(caption == " ".join(caption.split()) and caption.encode() for caption in found)


def test_the_configuration_is_chosen_by_name() -> None:
    adapter: TypeAdapter[BaseModel] = TypeAdapter(CaptionConfig)
    assert isinstance(adapter.validate_python({"name": "template"}), TemplateCaptions)
    assert isinstance(adapter.validate_python({"name": "openai"}), OpenAICaptions)
    assert isinstance(adapter.validate_python({"name": "own"}), OwnCaptions)


class Job(Settings):
    captions: CaptionConfig = TemplateCaptions()


def test_a_job_is_told_by_options_and_environment_and_keeps_no_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert isinstance(load(Job, []).captions, TemplateCaptions)
    monkeypatch.setenv("ETUDE_CAPTIONS__KEY", KEY)
    job = load(Job, ["--captions.name", "openai", "--captions.budget_usd", "2", "--captions.per_track", "3"])
    assert isinstance(job.captions, OpenAICaptions)
    assert (job.captions.budget_usd, job.captions.per_track, job.captions.api_key) == (2, 3, KEY)
    save(job, tmp_path / "job.yaml")
    assert KEY not in (tmp_path / "job.yaml").read_text()
    assert load(Job, ["--config", str(tmp_path / "job.yaml")]).captions == job.captions


def test_a_model_whose_price_is_not_known_needs_one() -> None:
    for given_ in ({"model": "gpt-4"}, {"base_url": "http://127.0.0.1:1/v1"}, {"model": "x", "input_usd": 1}):
        with pytest.raises(ValidationError, match="input_usd"):
            OpenAICaptions(**given_)
    config = OpenAICaptions(model="gpt-4", input_usd=30, output_usd=60)
    assert config.usd(1_000_000, 500_000) == 60
    assert OpenAICaptions().usd(1_000_000, 1_000_000) == pytest.approx(0.75)


def test_the_id_changes_with_what_shapes_captions_and_nothing_else() -> None:
    plain = OpenAICaptions()
    same = OpenAICaptions(
        key=KEY, concurrency=9, budget_usd=5, attempts=1, timeout_s=1, requests_per_minute=1
    )
    assert plain.id == same.id
    priced = {"input_usd": 1, "output_usd": 1}
    others = [
        OpenAICaptions(model="gpt-4o", **priced),
        OpenAICaptions(base_url="http://127.0.0.1:1/v1", **priced),
        OpenAICaptions(temperature=0),
        OpenAICaptions(temperature=None),
        OpenAICaptions(per_track=4),
        OpenAICaptions(similar=0),
    ]
    assert len({plain.id, *(other.id for other in others)}) == len(others) + 1
    assert len({TemplateCaptions().id, TemplateCaptions(seed=1).id, TemplateCaptions(per_track=4).id}) == 3


def test_the_key_comes_from_the_settings_or_the_environment_and_is_shown_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert OpenAICaptions().api_key == ""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    assert OpenAICaptions().api_key == "sk-environment"
    config = OpenAICaptions(key=KEY)
    assert config.api_key == KEY
    for shown in (repr(config), str(config), str(mask(config)), config.model_dump_json(), config.id):
        assert KEY not in shown
    assert KEY not in str(without_secrets(config))


def test_an_address_with_a_password_is_refused() -> None:
    with pytest.raises(ValidationError, match="no user"):
        OpenAICaptions(base_url="http://user:password@host/v1", input_usd=0, output_usd=0)
