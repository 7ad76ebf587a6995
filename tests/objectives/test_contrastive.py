"""What belongs together is pulled together, whoever holds it, and the temperature never gets stuck."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from etude.data.music_text import caption_ids
from etude.objectives.contrastive import Contrast, ContrastiveConfig
from etude.training.optimizer import parameter_groups
from tests.support.ranks import on_two_ranks

FORMS = ("infonce", "decoupled", "sigmoid")


def contrast(**settings: object) -> Contrast:
    return Contrast(ContrastiveConfig.model_validate(settings))


def vectors(n: int, seed: int = 0, dim: int = 12) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def by_hand(
    music: Tensor, text: Tensor, track: list[int], caption: list[int], config: ContrastiveConfig
) -> float:
    """The loss, pair by pair, in doubles."""
    n = len(track)
    music, text = normalize(music.double(), dim=1), normalize(text.double(), dim=1)
    logit = [[float(m @ t) / config.temperature for t in text] for m in music]
    together = [[track[i] == track[j] or caption[i] == caption[j] for j in range(n)] for i in range(n)]
    if config.form == "sigmoid":
        signed = [
            (1 if together[i][j] else -1) * (logit[i][j] + config.bias) for i in range(n) for j in range(n)
        ]
        return sum(math.log1p(math.exp(-z)) for z in signed) / n
    total = 0.0
    for i in range(n):
        for row in ([logit[i][j] for j in range(n)], [logit[j][i] for j in range(n)]):
            positive = [j for j in range(n) if together[i][j]]
            against = [j for j in range(n) if config.form == "infonce" or not together[i][j]]
            if not against:  # everything belongs to this item
                continue
            log_sum = math.log(sum(math.exp(row[j]) for j in against))
            total += sum(log_sum - row[j] for j in positive) / len(positive)
    return total / (2 * n)


@settings(max_examples=60)
@given(st.data())
def test_the_loss_is_what_its_definition_says(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 8))
    track, caption = (data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)) for _ in range(2))
    config = ContrastiveConfig(
        form=data.draw(st.sampled_from(FORMS)), temperature=data.draw(st.sampled_from([0.05, 0.3, 1.0]))
    )
    music, text = vectors(n, data.draw(st.integers(0, 99))), 3 * vectors(n, 1)
    loss = Contrast(config)(music, text, torch.tensor(track), torch.tensor(caption))
    assert loss.item() == pytest.approx(by_hand(music, text, track, caption, config), rel=1e-4, abs=1e-5)


def test_pairs_that_fit_lose_nothing_and_others_lose_more_than_chance() -> None:
    fitting, tracks = torch.eye(16), torch.arange(16)
    loss = contrast()
    assert loss(fitting, fitting, tracks).item() < 1e-4
    assert loss(fitting, fitting.roll(1, dims=0), tracks).item() > math.log(16)
    constant = torch.ones(16, 4)
    assert loss(constant, constant, tracks).item() == pytest.approx(math.log(16))


def test_decoupled_has_the_values_of_two_pairs() -> None:
    """With one negative a row is its cosine less the pair's, over the temperature."""
    loss, tracks = contrast(form="decoupled", temperature=0.5), torch.arange(2)
    axes = torch.eye(2)
    assert loss(axes, axes, tracks).item() == pytest.approx(-1 / 0.5)
    assert loss(axes, axes.flip(0), tracks).item() == pytest.approx(1 / 0.5)
    assert loss(torch.ones(2, 2), axes, tracks).item() == pytest.approx(0)
    opposite = torch.tensor([[1.0], [-1.0]])
    assert loss(opposite, opposite, tracks).item() == pytest.approx(-2 / 0.5)  # the least there is
    assert loss(torch.ones(16, 4), torch.ones(16, 4), torch.arange(16)).item() == pytest.approx(math.log(15))


def test_decoupled_is_infonce_without_the_pair_in_its_denominator() -> None:
    """So a pair that fits already is pulled on as hard: its gradient does not fade."""
    text, tracks = torch.eye(4), torch.arange(4)
    pulled = {}
    for form in ("infonce", "decoupled"):
        music = (torch.eye(4) + 0.01).requires_grad_()
        contrast(form=form, temperature=0.05)(music, text, tracks).backward()
        assert music.grad is not None
        pulled[form] = music.grad.norm().item()
    assert pulled["decoupled"] > 100 * pulled["infonce"]


def test_what_belongs_to_everything_is_left_alone_by_decoupled() -> None:
    loss, one_track = contrast(form="decoupled"), torch.zeros(3, dtype=torch.int64)
    music = vectors(3).requires_grad_()
    value = loss(music, vectors(3, 1), one_track)
    value.backward()
    assert value.item() == 0
    assert music.grad is not None
    assert not music.grad.any()
    mixed = loss(music, vectors(3, 1), one_track, torch.tensor([1, 2, 3]))
    assert mixed.item() == 0


@pytest.mark.parametrize("form", FORMS)
def test_music_and_text_are_treated_alike(form: str) -> None:
    loss, tracks = contrast(form=form), torch.arange(9)
    music, text = vectors(9), vectors(9, 1)
    torch.testing.assert_close(loss(music, text, tracks), loss(text, music, tracks))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shared", ["track", "caption"])
def test_what_belongs_together_is_no_negative(form: str, shared: str) -> None:
    """Items 0 and 1 share their track, or their caption: the gradient pulls 0's music to 1's text too."""
    music = torch.eye(4).requires_grad_()
    text = torch.eye(4)
    ids = torch.tensor([0, 0, 2, 3])
    apart = torch.arange(4)
    loss = contrast(form=form, temperature=0.5)
    together = (ids, apart) if shared == "track" else (apart, ids)
    (pulled,) = torch.autograd.grad(loss(music, text, *together), music)
    (pushed,) = torch.autograd.grad(loss(music, text, apart, apart), music)
    assert pulled[0, 1] < -1e-3  # a step against the gradient raises the cosine
    assert pushed[0, 1] > 0
    assert pulled[0, 2] > 0


def test_captions_are_the_same_but_for_case_and_spaces() -> None:
    ids = caption_ids(["A slow  piano piece", "a slow piano piece ", "a slow piano", "ÉTUDE", "étude", ""])
    assert ids.dtype == torch.int64
    assert ids[0] == ids[1]
    assert ids[3] == ids[4]
    assert len(set(ids.tolist())) == 4
    assert caption_ids(["a slow piano piece"]).item() == 3104604282498021046  # on every machine


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_costs_no_precision_in_the_loss(form: str) -> None:
    loss, tracks = contrast(form=form), torch.arange(32)
    music, text = (vectors(32, seed).bfloat16() for seed in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = loss(music, text, tracks)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, loss(music.float(), text.float(), tracks), rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_vectors_leave_loss_and_gradients_finite(form: str) -> None:
    music = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [1e15, 1.0]], requires_grad=True)
    loss = contrast(form=form, temperature=0.01)
    value = loss(music, torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1e10]]), torch.arange(3))
    value.backward()
    assert value.isfinite()
    assert music.grad is not None
    assert music.grad.isfinite().all()


# The temperature


def test_the_temperature_starts_where_it_is_told_and_comes_back() -> None:
    loss = contrast(form="sigmoid", temperature=0.2, bias=-3.0)
    assert loss.scale().item() == pytest.approx(5)
    with torch.no_grad():
        loss.logit_scale.add_(0.5)
        loss.bias.add_(1)
    loss.reset()
    assert loss.scale().item() == pytest.approx(5)
    assert loss.bias.item() == -3


@pytest.mark.parametrize(("fits", "bound"), [(True, 100.0), (False, 1.0)])
def test_the_temperature_stays_in_its_bounds_and_leaves_them_again(fits: bool, bound: float) -> None:
    """Pairs that fit want it ever smaller, pairs that do not ever larger; then they change their mind."""
    loss, tracks, music = contrast(), torch.arange(8), torch.eye(8) + 1.2
    optimizer = torch.optim.AdamW(loss.parameters(), lr=0.1)

    def learn(fitting: bool, steps: int) -> float:
        text = music if fitting else music.roll(1, dims=0)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(music, text, tracks).backward()
            optimizer.step()
        return loss.scale().item()

    assert learn(fits, 500) == pytest.approx(bound)
    assert abs(math.log(bound / learn(not fits, 60))) > 0.5


def test_a_fixed_temperature_is_no_parameter() -> None:
    fixed = contrast(learned=False, temperature=2.0)
    assert not list(fixed.parameters())
    assert not fixed.state_dict()
    assert fixed.scale().item() == pytest.approx(0.5)


def test_weight_decay_leaves_temperature_and_bias_alone() -> None:
    decayed, free = parameter_groups(contrast(form="sigmoid"))
    assert (decayed.decayed, len(decayed.parameters), len(free.parameters)) == (True, 0, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": 2.0}, "between min_temperature"),
        ({"temperature": 0.001}, "between min_temperature"),
        ({"min_temperature": 1.0}, "below max_temperature"),
        ({"bias": -5.0}, "bias belongs to the sigmoid form"),
        ({"form": "decoupled", "bias": -5.0}, "bias belongs to the sigmoid form"),
        ({"form": "triplet"}, "form"),
        ({"chunk": 1}, "chunk"),
        ({"margin": 1}, "margin"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ContrastiveConfig.model_validate(wrong)


@pytest.mark.parametrize("form", FORMS)
def test_cosines_held_a_few_rows_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    found = []
    for rows in (512, 3):
        monkeypatch.setattr("etude.objectives.contrastive._ROWS", rows)
        found.append(_step(Pair(form), slice(None), True))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


# Several workers


class Pair(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.music, self.text = (nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 6)) for _ in "mt")
        self.contrast = contrast(form=form, temperature=0.1)

    def forward(self, music: Tensor, text: Tensor, track: Tensor, caption: Tensor | None) -> Tensor:
        loss: Tensor = self.contrast(self.music(music), self.text(text), track, caption)
        return loss


TRACK = torch.tensor([0, 1, 2, 3, 0, 4, 5, 6])
CAPTION = torch.tensor([10, 11, 11, 12, 13, 14, 15, 12])


def _step(pair: nn.Module, rows: slice, named: bool) -> dict[str, Tensor]:
    caption = CAPTION[rows] if named else None
    loss = pair(vectors(8, 2)[rows], vectors(8, 3)[rows], TRACK[rows], caption)
    loss.backward()
    gradients = {name.removeprefix("module."): p.grad for name, p in pair.named_parameters()}
    return {"loss": loss.detach(), **gradients}


def _share(rank: int) -> dict[tuple[str, bool], dict[str, Tensor]]:
    """This rank takes every second item, as data sets share them out."""
    found = {}
    for form in FORMS:
        for named in (True, False):
            found[form, named] = _step(DistributedDataParallel(Pair(form)), slice(rank, None, 2), named)
    evaluated = Pair("infonce").eval()
    found["evaluated", True] = _step(evaluated, slice(rank, None, 2), True)
    try:
        Pair("infonce")(vectors(2 + rank), vectors(2 + rank), TRACK[: 2 + rank], None)
    except AssertionError as error:
        found["unequal", True] = {str(error): torch.zeros(())}
    return found


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory):
    return on_two_ranks(_share, Path(tmp_path_factory.mktemp("ranks")))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("named", [True, False])
def test_two_workers_and_one_have_the_same_loss_and_gradients(two_ranks, form: str, named: bool) -> None:
    expected = _step(Pair(form), slice(None), named)
    assert all(value.abs().max() > 1e-4 for value in expected.values())
    for rank in two_ranks:
        torch.testing.assert_close(rank[form, named], expected, rtol=1e-5, atol=1e-6)


def test_out_of_training_each_has_its_own_loss(two_ranks) -> None:
    for rank, found in enumerate(two_ranks):
        expected = _step(Pair("infonce").eval(), slice(rank, None, 2), True)
        torch.testing.assert_close(found["evaluated", True], expected)


def test_unequal_shares_are_told(two_ranks) -> None:
    for found in two_ranks:
        assert list(found["unequal", True]) == ["ranks hold from 2 to 3 items: shares must be equal"]
