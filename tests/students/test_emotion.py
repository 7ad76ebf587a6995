"""The ten networks have the published sizes, give what their targets are, start and freeze as they say."""

import pytest
import torch
from pydantic import ValidationError

from etude.emotion.models import MODELS, Model
from etude.errors import UserError
from etude.export.emotion_network import usual_inputs
from etude.students.emotion import EmotionNetwork, build_emotion_network, network_of
from etude.students.emotion_layers import (
    PLANS,
    EmotionStudentConfig,
    Variant,
    folded_plan,
    plan_of,
)  # fmt: skip
from tests.support.emotion_networks import TEN, lived_in

PARAMETERS = {  # facts/projection_and_emotion.md, b
    "dense": (74_944, 75_008, 29_184, 4_848, 7_424),
    "recurrent": (403_264, 641_664, 74_176, 13_520, 18_656),
}
IN_AND_OUT = {
    "recognizer": (128, 64), "melody": (64, 128), "harmony": (128, 64), "dynamics": (32, 16),
    "groove": (64, 32),
}  # fmt: skip


@pytest.mark.parametrize("variant", PARAMETERS)
def test_sizes_are_the_published_ones(variant: Variant) -> None:
    for model, wanted in zip(MODELS, PARAMETERS[variant], strict=True):
        plan = PLANS[model, variant]
        network = EmotionNetwork(plan)
        assert sum(p.numel() for p in network.parameters()) == plan.parameters == wanted
        assert (plan.n_in, plan.output.n_out) == IN_AND_OUT[model]
        assert f"{wanted:,} parameters" in str(plan)


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_outputs_lie_in_their_range_and_follow_from_the_logits(model: Model, variant: Variant) -> None:
    network = lived_in(model, variant)
    inputs = 5 * torch.randn(16, network.plan.n_in)
    output, logits = network(inputs), network.logits(inputs)
    low, high = float(output.detach().min()), float(output.detach().max())
    assert output.shape == (16, network.plan.output.n_out)
    assert low >= -1 and high <= 1
    if model == "recognizer":
        torch.testing.assert_close(output, logits.tanh())
    elif model in ("melody", "harmony"):
        torch.testing.assert_close(output.sum(dim=1), torch.ones(16))
        torch.testing.assert_close(output, logits.softmax(dim=1))
    else:
        assert low >= 0
        torch.testing.assert_close(output, logits.sigmoid())


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_it_begins_as_the_best_constant_and_learns_from_there(model: Model, variant: Variant) -> None:
    other = lived_in(model, variant)
    inputs = torch.from_numpy(usual_inputs(other, 32))
    target = other(inputs).detach()
    network = build_emotion_network(model, EmotionStudentConfig(variant=variant, dropout=0))
    if model == "recognizer":
        network.standardise_by(other.mean, other.spread)
    network.eval().start_at(target.mean(dim=0))
    with torch.no_grad():
        constant = target.mean(dim=0).expand_as(target)
        torch.testing.assert_close(network(inputs), constant, atol=1e-4, rtol=0)
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(40):
        loss = (network(inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * float((constant - target).square().mean())


def test_means_at_the_ends_of_the_range_stay_finite() -> None:
    for model in MODELS:
        network = lived_in(model, "dense")
        network.start_at(torch.zeros(network.plan.output.n_out).index_fill(0, torch.tensor([0]), 1))
        output = network(torch.randn(2, network.plan.n_in))
        assert torch.isfinite(network.last.bias).all()
        assert float(output[0, 0].detach()) > 0.99


def test_the_recogniser_reads_features_in_any_unit() -> None:
    network = EmotionNetwork(PLANS["recognizer", "dense"]).eval()
    plain = torch.randn(50, 128)
    expected = network(plain)
    scale, offset = 10 ** torch.empty(128).uniform_(-3, 3), torch.randn(128)
    network.standardise_by(scale * offset, scale)
    torch.testing.assert_close(network(scale * (plain + offset)), expected, atol=1e-4, rtol=1e-4)


def test_a_constant_feature_does_not_blow_up() -> None:
    network = EmotionNetwork(PLANS["recognizer", "dense"]).eval()
    network.standardise_by(torch.full((128,), 1000.0), torch.full((128,), 1e-4))
    found = network(torch.full((1, 128), 1000.5))
    network.standardise_by(torch.zeros(128), torch.ones(128))
    torch.testing.assert_close(found, network(torch.full((1, 128), 0.5)))


def test_heads_read_the_embedding_and_shape_it() -> None:
    network = build_emotion_network("recognizer", EmotionStudentConfig()).train()
    embedding = network(torch.randn(8, 128))
    category, node = network.heads(embedding)
    assert (category.shape, node.shape) == ((8, 6), (8, 216))
    (category.logsumexp(dim=1).sum() + node.logsumexp(dim=1).sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_frozen_layers_keep_weights_and_statistics(model: Model, variant: Variant) -> None:
    network = lived_in(model, variant)
    network.freeze_first(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.AdamW(p for p in network.parameters() if p.requires_grad)
    for _ in range(2):
        network(torch.randn(8, network.plan.n_in)).square().sum().backward()
        optimizer.step()
    for name, value in network.state_dict().items():
        frozen = name.startswith(("blocks.0.", "blocks.1.", "mean", "spread"))
        learns = "_hh_" not in name  # sees no gradient in a sequence of one, but weight decay
        assert not learns or torch.equal(value, before[name]) == frozen, name


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_freezing_more_than_there_is_is_refused(model: Model, variant: Variant) -> None:
    network = EmotionNetwork(PLANS[model, variant])
    n_layers = len(network.plan.layers)
    for n in (n_layers, 99):
        with pytest.raises(UserError, match=rf"frozen_layers is {n} .* set it to {n_layers - 1} or less"):
            network.freeze_first(n)
    network.freeze_first(0)
    assert all(p.requires_grad for p in network.parameters())


def test_an_lstm_that_was_trained_remembers_nothing() -> None:
    torch.manual_seed(0)
    network = build_emotion_network("melody", EmotionStudentConfig(variant="recurrent"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(5):
        network(torch.randn(8, 64)).square().sum().backward()
        optimizer.step()
    lstm, step = network.blocks[1].lstm, torch.randn(3, 1, 256)
    once, _ = lstm(step)
    twice, _ = lstm(step.repeat(1, 2, 1))
    torch.testing.assert_close(twice[:, 1], once[:, 0])


def test_dropout_is_configured_for_hidden_layers_of_either_variant() -> None:
    for model, variant in TEN:
        plan = plan_of(model, EmotionStudentConfig(variant=variant, dropout=0.5))
        shares = [getattr(layer, "dropout", 0.5) for layer in plan.layers]
        assert shares == [0.5] * (len(shares) - 1) + [0.0]
        assert plan.parameters == PLANS[model, variant].parameters
    assert plan_of("melody", EmotionStudentConfig()) == PLANS["melody", "dense"]
    with pytest.raises(ValidationError):
        EmotionStudentConfig(dropout=1.0)


def test_a_batch_of_one_is_refused_in_training_only() -> None:
    network = EmotionNetwork(PLANS["groove", "dense"])
    with pytest.raises(UserError, match=r"choose training\.batch_size"):
        network.train()(torch.randn(1, 64))
    assert network.eval()(torch.randn(1, 64)).shape == (1, 32)
    assert EmotionNetwork(PLANS["groove", "recurrent"]).train()(torch.randn(1, 64)).shape == (1, 32)


@pytest.mark.parametrize(("model", "variant"), TEN)
def test_a_state_tells_which_network_it_is(model: Model, variant: Variant) -> None:
    trained = lived_in(model, variant, heads=model == "recognizer")
    found, network = network_of(trained.state_dict(), "here")
    inputs = torch.randn(4, trained.plan.n_in)
    assert found == model
    assert torch.equal(network(inputs), trained(inputs))


def test_another_state_is_refused() -> None:
    for state in ({}, {"blocks.0.linear.weight": torch.zeros(3, 3)}):
        with pytest.raises(UserError, match=r"best\.pt holds none of the emotion networks"):
            network_of(state, "best.pt")


def test_a_folded_plan_has_layers_that_every_runtime_knows() -> None:
    for plan in PLANS.values():
        simple = folded_plan(plan, standardisation=True)
        assert not simple.standardised
        assert [layer.n_out for layer in simple.layers] == [layer.n_out for layer in plan.layers]
        assert "batch norm" not in str(simple)
