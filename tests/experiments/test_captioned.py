"""Which captions an experiment has that is not told any."""

from pathlib import Path
from typing import Any

import pytest

from etude.config import load, save
from etude.errors import UserError
from etude.experiments.base import part
from etude.experiments.music_text import MusicTextExperiment
from etude.sources import CaptionedConfig, FolderConfig, MusicBenchConfig
from etude.sources.captions import OwnCaptions, TemplateCaptions
from etude.workflow import captioning_plan, prepare_captioned
from tests.support.musicbench import write_musicbench


@pytest.mark.parametrize("name", ["captioned", "musicbench"])
def test_music_that_brings_captions_has_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--source.name", name, "--source.path", str(tmp_path)]
    told = load(MusicTextExperiment, words)
    assert told.captions == OwnCaptions()
    asked = load(MusicTextExperiment, [*words, "--captions.name", "template"])
    assert asked.captions == TemplateCaptions()
    three = load(MusicTextExperiment, [*words, "--captions.per_track", "3"])
    assert three.captions == TemplateCaptions(per_track=3)
    for settings in (told, asked, three):
        save(settings, tmp_path / "my.yaml")
        assert load(MusicTextExperiment, ["--config", str(tmp_path / "my.yaml")]) == settings
        assert part(settings, MusicTextExperiment) == settings
    monkeypatch.setenv("ETUDE_SOURCE__NAME", name)
    assert load(MusicTextExperiment, words[2:]).captions == OwnCaptions()


def test_other_music_has_templates_unless_told(tmp_path: Path) -> None:
    assert load(MusicTextExperiment, []).captions == TemplateCaptions()
    assert load(MusicTextExperiment, ["--captions.name", "own"]).captions == OwnCaptions()
    with pytest.raises(UserError, match=r"captions\.per_track does not go with the chosen captions\.name"):
        load(MusicTextExperiment, ["--captions.name", "own", "--captions.per_track", "3"])


@pytest.mark.parametrize(
    ("source", "captions"),
    [(FolderConfig, TemplateCaptions), (CaptionedConfig, OwnCaptions), (MusicBenchConfig, OwnCaptions)],
)
def test_in_code_it_is_the_same(source: Any, captions: type, tmp_path: Path) -> None:
    made = MusicTextExperiment(home=tmp_path, source=source(path=tmp_path))
    assert isinstance(made.captions, captions)
    assert MusicTextExperiment.model_validate(made.model_dump()) == made
    asked = MusicTextExperiment(home=tmp_path, source=source(path=tmp_path), captions=TemplateCaptions())
    assert asked.captions == TemplateCaptions()
    assert MusicTextExperiment.model_validate(asked.model_dump()) == asked


def test_the_captions_of_musicbench_are_chosen_by_an_option(tmp_path: Path) -> None:
    words = ["--source.name", "musicbench", "--source.path", str(tmp_path)]
    told = load(MusicTextExperiment, [*words, "--source.captions", '["main_caption", "prompt_key"]'])
    assert told.source == MusicBenchConfig(path=tmp_path, captions=("main_caption", "prompt_key"))
    save(told, tmp_path / "my.yaml")
    assert load(MusicTextExperiment, ["--config", str(tmp_path / "my.yaml")]) == told
    with pytest.raises(UserError, match=r"source\.captions"):
        load(MusicTextExperiment, [*words, "--source.captions", '["captions"]'])


def test_the_plan_counts_what_came(tmp_path: Path) -> None:
    write_musicbench(tmp_path / "set", 6, seconds=0.2, n_test=2, copies=0)
    source = MusicBenchConfig(path=tmp_path / "set")
    told = captioning_plan(MusicTextExperiment(home=tmp_path / "home", source=source))
    assert "library: 6 tracks" in told
    assert "captions came with 6 tracks, 0 have none" in told
    assert not (tmp_path / "home" / "store").exists()


def test_music_without_any_is_refused_before_it_is_heard(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"not read here")
    settings = MusicTextExperiment(
        home=tmp_path / "home", source=FolderConfig(path=tmp_path), captions=OwnCaptions()
    )
    with pytest.raises(UserError, match="none of the 1 tracks came with captions"):
        prepare_captioned(settings)
    assert "needed first: none of the 1 tracks came with captions" in captioning_plan(settings)
