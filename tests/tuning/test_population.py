"""Who takes over from whom follows from the journal and the seed, and nothing good is lost."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.tuning.journal import Entry, Journal
from etude.tuning.population import (
    PopulationConfig,
    check_changeable,
    generation_ends,
    takeovers,
)
from etude.tuning.space import Distribution, sample
from etude.tuning.sweep import draw
from etude.tuning.trial import SweepConfig

SPACE = {
    "training.learning_rate": Distribution(loguniform=(1e-3, 1e-2)),
    "training.weight_decay": Distribution(uniform=(0.0, 0.3)),
    "objective.weights.mse": Distribution(choice=[0.0, 0.1, 0.3, 1.0]),
    "augment.freq_masks": Distribution(randint=(0, 3)),
    "augment.gain_db": Distribution(quniform=(0.0, 3.0, 0.5)),
}
SEED = (0, 1)


def journal_of(path: Path, scores: list[list[float]]) -> Journal:
    """Members that have reported these scores, epoch by epoch."""
    journal = Journal(path / "journal.jsonl")
    for number, overrides in enumerate(sample(SPACE, len(scores), SEED)):
        journal.append(Entry(number, overrides=overrides))
    for epoch in range(1, max(map(len, scores)) + 1):
        for number, curve in enumerate(scores):
            if epoch <= len(curve):
                journal.append(Entry(number, epoch, curve[epoch - 1]))
    return journal


SCORES = st.lists(
    st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=4, max_size=4), min_size=1, max_size=9
)


@settings(max_examples=60)
@given(scores=SCORES, quantile=st.floats(0, 0.5), resample=st.floats(0, 1))
def test_the_worst_take_over_from_the_best(
    tmp_path_factory: pytest.TempPathFactory, scores: list[list[float]], quantile: float, resample: float
) -> None:
    config = PopulationConfig(every_epochs=4, quantile=quantile, resample=resample)
    journal = journal_of(tmp_path_factory.mktemp("sweep"), scores)
    before = [journal.overrides(number) for number in journal.proposed()]
    bests = {number: journal.best(number) for number in journal.proposed()}
    found = takeovers(journal, 4, SPACE, config, SEED)
    for one in found:
        assert scores[one.donor][3] > scores[one.member][3] or scores[one.member][3] != scores[one.member][3]
        assert one.donor not in {other.member for other in found}
        assert 1e-3 <= one.overrides["training.learning_rate"] <= 1e-2
        assert 0 <= one.overrides["training.weight_decay"] <= 0.3
        assert one.overrides["objective.weights.mse"] in (0.0, 0.1, 0.3, 1.0)
        assert one.overrides["augment.freq_masks"] in (0, 1, 2)
        assert one.overrides["augment.gain_db"] in (0, 0.5, 1, 1.5, 2, 2.5, 3)
        if not resample:
            rate = before[one.donor]["training.learning_rate"]
            moved = [min(max(rate * factor, 1e-3), 1e-2) for factor in (0.8, 1.2)]
            assert any(one.overrides["training.learning_rate"] == pytest.approx(m, rel=1e-3) for m in moved)
    # A driver killed after any of them decides the same, however far others have come since.
    for one in found:
        journal.append(one.entry(4))
        assert takeovers(journal, 4, SPACE, config, SEED) == found
    for number in journal.proposed():
        journal.append(Entry(number, 5, 0.1 * number))
        journal.append(Entry(number, ended="failed"))
    assert takeovers(journal, 4, SPACE, config, SEED) == found
    after = [best for best in map(journal.best, journal.proposed()) if best is not None]
    assert max(after) >= max((best for best in bests.values() if best is not None), default=0)


def test_the_best_checkpoint_of_all_is_never_lost(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, [[0.9, 0.1], [0.2, 0.3], [0.2, 0.4], [0.2, 0.5]])
    assert takeovers(journal, 2, SPACE, PopulationConfig(quantile=0.25), SEED) == []
    (one,) = takeovers(journal, 2, SPACE, PopulationConfig(quantile=0.5), SEED)
    assert one.member == 1
    assert one.donor in (2, 3)


def test_generations_end_at_multiples_and_at_the_end() -> None:
    assert generation_ends(4, 10) == [4, 8, 10]
    assert generation_ends(4, 8) == [4, 8]
    assert generation_ends(9, 8) == [8]


@pytest.mark.parametrize(
    "key", ["student.width", "student.dropout", "training.epochs", "training.batch_size"]
)
def test_what_shapes_the_network_or_the_run_cannot_change_within_it(key: str) -> None:
    with pytest.raises(UserError, match=rf"{key} must not change there.*training\.learning_rate"):
        check_changeable(["training.learning_rate", key])


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"space": {"student.width": {"choice": [0.2]}}, "population": {}}, "student.width must not change"),
        ({"cases": {"a": {}}, "population": {}}, r"need sweep\.space"),
        ({"cases": {"a": {}}, "search": "optuna"}, r"need sweep\.space"),
        (
            {"space": {"training.weight_decay": {"choice": [0.1]}}, "population": {}, "search": "optuna"},
            "leave sweep.search or sweep.population out",
        ),
    ],
)
def test_what_does_not_go_together_is_told(sweep: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        draw(AudioExperiment(), SweepConfig(**sweep), SEED)
