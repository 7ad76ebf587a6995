"""Weights that forbid commercial use are heard by nobody who has not accepted that, once."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etude.config import load
from etude.data.plan import PrepareConfig
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import part
from etude.experiments.spaces import OverSpaces
from etude.licences import require_licences
from etude.sources import FolderConfig
from etude.teachers import MertConfig, MuQConfig, MusiCNNConfig, StoredConfig
from etude.workflow import prepare_captioned, prepare_library
from tests.support.musicbench import write_musicbench

LICENCE = "CC-BY-NC-4.0"


def test_the_weights_the_licence_and_the_option_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    said = f"the weights of MERT (m-a-p/MERT-v1-330M) are under {LICENCE}, which forbids commercial use"
    with pytest.raises(UserError, match=f"{re.escape(said)}.*--accept-licence"):
        require_licences(tmp_path, [MusiCNNConfig(), MertConfig()], accept=False)
    assert list(tmp_path.iterdir()) == []


def test_what_was_accepted_once_is_asked_for_no_more(tmp_path: Path) -> None:
    home = tmp_path / "not there yet"
    before = datetime.now(UTC).date().isoformat()
    require_licences(home, [MertConfig()], accept=True)
    kept = json.loads((home / "licences.json").read_text())
    assert kept.keys() == {"mert"} and kept["mert"]["licence"] == LICENCE
    assert before <= kept["mert"]["accepted"] <= datetime.now(UTC).date().isoformat()
    require_licences(home, [MertConfig()], accept=False)
    with pytest.raises(UserError, match=r"the weights of MuQ-MuLan"):  # another model, another decision
        require_licences(home, [MertConfig(), MuQConfig()], accept=False)
    require_licences(home, [MuQConfig()], accept=True)
    require_licences(home, [MertConfig(), MuQConfig()], accept=False)
    assert [path.name for path in home.iterdir()] == ["licences.json"]


def test_a_licence_that_changed_is_accepted_anew(tmp_path: Path) -> None:
    require_licences(tmp_path, [MertConfig()], accept=True)
    file = tmp_path / "licences.json"
    file.write_text(file.read_text().replace(LICENCE, "CC-BY-NC-3.0"))
    with pytest.raises(UserError, match=LICENCE):
        require_licences(tmp_path, [MertConfig()], accept=False)


def test_free_teachers_ask_for_nothing(tmp_path: Path) -> None:
    require_licences(tmp_path, [MusiCNNConfig(), StoredConfig()], accept=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[1]", '{"mert": "yes"}'])
def test_a_damaged_record_is_no_acceptance(tmp_path: Path, content: str) -> None:
    (tmp_path / "licences.json").write_text(content)
    with pytest.raises(UserError, match=r"licences\.json.*delete it and use --accept-licence"):
        require_licences(tmp_path, [MertConfig()], accept=False)


def test_a_library_is_prepared_only_with_the_licence_accepted(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    settings = AudioExperiment(
        home=tmp_path / "home",
        source=FolderConfig(name="folder", path=tmp_path / "music"),
        prepare=PrepareConfig(also=(MertConfig(weights=str(tmp_path / "mert")),)),
    )
    with pytest.raises(UserError, match="--accept-licence"):
        prepare_library(settings)
    with pytest.raises(UserError, match=r"there is no folder .*mert with the files of MERT"):
        prepare_library(settings.model_copy(update={"accept_licence": True}))
    with pytest.raises(UserError, match=r"there is no folder .*mert with the files of MERT"):
        prepare_library(settings)


def test_captioned_music_is_prepared_only_with_the_licence_accepted(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    write_musicbench(clips, 20)
    settings = OverSpaces(
        home=tmp_path / "home",
        space="mert",
        teacher={"weights": str(tmp_path / "mert")},
        source={"name": "musicbench", "path": clips},
    )
    with pytest.raises(UserError, match="--accept-licence"):
        prepare_captioned(settings)
    with pytest.raises(UserError, match=r"there is no folder .*mert with the files of MERT"):
        prepare_captioned(settings.model_copy(update={"accept_licence": True}))


def test_an_acceptance_is_no_part_of_what_is_kept_or_compared(tmp_path: Path) -> None:
    accepting = load(AudioExperiment, ["--home", str(tmp_path), "--accept-licence"])
    plain = load(AudioExperiment, ["--home", str(tmp_path)])
    assert accepting.accept_licence and not plain.accept_licence
    assert accepting.model_dump(mode="json") == plain.model_dump(mode="json")
    assert not part(accepting, AudioExperiment).accept_licence
    assert "accept_licence" in AudioExperiment.shared  # no sweep varies it
    assert "accept_licence" not in AudioExperiment.shaping
