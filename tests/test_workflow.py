"""What is wrong with captions shows before a library is prepared."""

import re
from pathlib import Path

import pytest

from etude.config import load
from etude.errors import UserError
from etude.experiments.music_text import MusicTextExperiment
from etude.workflow import captioning_plan, prepare_captioned

OPENAI = ["--source.pieces", "3", "--captions.name", "openai"]


def experiment(home: Path, *words: str) -> MusicTextExperiment:
    return load(MusicTextExperiment, ["--home", str(home), *OPENAI, *words])


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("words", "lacks"),
    [((), "no key for OpenAI: set OPENAI_API_KEY"), (("--captions.key", "sk-1"), "captions.budget_usd is 0")],
)
def test_a_missing_key_or_budget_shows_in_the_plan_and_before_anything_is_prepared(
    words: tuple[str, ...], lacks: str, tmp_path: Path
) -> None:
    told = captioning_plan(experiment(tmp_path, *words))
    assert "US dollars" in told
    assert "needed first: " in told.splitlines()[-1] and lacks in told.splitlines()[-1]
    with pytest.raises(UserError, match=re.escape(lacks)):
        prepare_captioned(experiment(tmp_path, *words))
    assert not (tmp_path / "store" / "features").exists()


def test_the_estimate_counts_the_similar_tracks_that_the_model_is_told_of(tmp_path: Path) -> None:
    def tokens(similar: int) -> int:
        told = captioning_plan(experiment(tmp_path, "--captions.similar", str(similar)))
        found = re.search(r"about (\d+) tokens sent", told)
        assert found is not None
        return int(found[1])

    assert tokens(2) > tokens(0) + 3 * 30
