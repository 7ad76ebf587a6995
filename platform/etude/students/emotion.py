"""The five emotion networks of seed 5, built from their lists of layers."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from etude.emotion.models import Model
from etude.errors import UserError
from etude.students.emotion_layers import PLANS, Activation, Dense, EmotionStudentConfig, Lstm, Plan, plan_of

N_CATEGORIES, N_NODES = 6, 216  # of the thesaurus: facts/projection_and_emotion.md, b
_SHUT = -30.0  # a gate's bias: the sigmoid is 1e-13
_TINY = 1e-6
_INSIDE = 1e-4  # how far from the ends of an output's range a network starts


class EmotionNetwork(nn.Module):
    """Inputs [b, n_in] to outputs [b, n_out] in the range of the last activation.

    A recogniser that is trained has two heads beside it, which no export has: they read the embedding, and
    so what they learn of categories and nodes shapes it.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, plan: Plan, *, heads: bool = False) -> None:
        super().__init__()
        self.plan = plan
        self.blocks = nn.ModuleList(
            DenseBlock(n_in, layer) if isinstance(layer, Dense) else LstmBlock(n_in, layer)
            for n_in, layer in zip(plan.sizes_in, plan.layers, strict=True)
        )
        if plan.standardised:
            self.register_buffer("mean", torch.zeros(plan.n_in))
            self.register_buffer("spread", torch.ones(plan.n_in))
        n_out = plan.output.n_out
        self.category_head = nn.Linear(n_out, N_CATEGORIES) if heads else None
        self.node_head = nn.Linear(n_out, N_NODES) if heads else None
        self._frozen = 0

    @property
    def last(self) -> nn.Linear:
        """The output layer's linear map."""
        block = self.blocks[-1]
        assert isinstance(block, DenseBlock)
        return block.linear

    def forward(self, input_BI: Tensor) -> Tensor:
        """Outputs [b, n_out]. Raises UserError in training if b is 1 and there is batch norm."""
        return activated(self.logits(input_BI), self.plan.output.activation)

    def logits(self, input_BI: Tensor) -> Tensor:
        """What is before the last activation [b, n_out], for losses that stay finite."""
        state_BH = (input_BI - self.mean) / self.spread if self.plan.standardised else input_BI
        for block in self.blocks[:-1]:
            state_BH = block(state_BH)
        logits: Tensor = self.last(state_BH)
        return logits

    def heads(self, embedding_BE: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the category [b, 6] and of the node [b, 216], from what `forward` returned."""
        assert self.category_head is not None and self.node_head is not None, "built without heads"
        return self.category_head(embedding_BE), self.node_head(embedding_BE)

    def standardise_by(self, mean_I: Tensor, spread_I: Tensor) -> None:
        """Take the inputs' mean and standard deviation [n_in], in the units of the inputs.

        A number that hardly varies has no spread to divide by, rounding aside: it is only centred.
        """
        assert self.plan.standardised, "this network takes its inputs as they are"
        assert torch.isfinite(mean_I).all() and torch.isfinite(spread_I).all() and (spread_I >= 0).all()
        constant = spread_I <= _TINY * mean_I.abs().clamp_min(_TINY)
        self.mean.copy_(mean_I)
        self.spread.copy_(torch.where(constant, torch.ones_like(spread_I), spread_I))

    @torch.no_grad()
    def start_at(self, mean_O: Tensor) -> None:
        """Begin as the constant [n_out] that is best without an input: whatever is learned then is skill."""
        self.last.weight.zero_()
        self.last.bias.copy_(_before(mean_O.to(self.last.bias), self.plan.output.activation))

    def train(self, mode: bool = True) -> Self:
        """Training mode, in which frozen layers stay as they answer users."""
        super().train(mode)
        for block in self.blocks[: self._frozen]:
            block.eval()
        return self

    def freeze_first(self, n_layers: int) -> None:
        """Let the first layers keep their weights and batch statistics from now on.

        Raises UserError if that would leave none to learn.
        """
        if n_layers >= len(self.blocks):
            raise UserError(
                f"student.frozen_layers is {n_layers} and the network has {len(self.blocks)} layers, of "
                f"which one must learn: set it to {len(self.blocks) - 1} or less"
            )
        self._frozen = n_layers
        for number, block in enumerate(self.blocks):
            block.requires_grad_(number >= n_layers)
        self.train(self.training)


class DenseBlock(nn.Module):
    """A linear map, the activation, batch norm, dropout: seed 5's order, in which the norm comes last."""

    def __init__(self, n_in: int, layer: Dense) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, layer.n_out)
        # At PyTorch's 1e-5 a unit that hardly ever speaks would be amplified 300 times when it does.
        self.norm = nn.BatchNorm1d(layer.n_out, eps=1e-3) if layer.batch_norm else None
        self.dropout = nn.Dropout(layer.dropout)
        self._activation = layer.activation

    def forward(self, input_BI: Tensor) -> Tensor:
        state_BO = activated(self.linear(input_BI), self._activation)
        if self.norm is not None:
            if self.norm.training and len(state_BO) == 1:
                raise UserError(
                    "the network normalises over the batch, and a single item has no variance: choose "
                    "training.batch_size so that no batch holds one item alone"
                )
            state_BO = self.norm(state_BO)
        dropped: Tensor = self.dropout(state_BO)
        return dropped


class LstmBlock(nn.Module):
    """An LSTM over one step from nothing, [b, n_in] to [b, n_out].

    What it keeps of a step before is never seen in training, so no gradient reaches the recurrent weights
    and the forget gate. They begin, and so remain, shut: a plug-in whose LSTM has a memory gets the same
    answer from its second call as from its first.
    """

    def __init__(self, n_in: int, layer: Lstm) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_in, layer.n_out, batch_first=True)
        forget = slice(layer.n_out, 2 * layer.n_out)  # PyTorch's order: input, forget, cell, output
        with torch.no_grad():
            weight_ih, weight_hh, bias_ih, bias_hh = self.weights
            weight_hh.zero_()
            weight_ih[forget] = 0
            bias_ih[forget] = _SHUT
            bias_hh[forget] = 0

    @property
    def weights(self) -> list[nn.Parameter]:
        """From inputs [4 n_out, n_in] and outputs [4 n_out, n_out], and a bias [4 n_out] for each."""
        return self.lstm.all_weights[0]

    def forward(self, input_BI: Tensor) -> Tensor:
        output_B1O, _ = self.lstm(input_BI[:, None])
        output: Tensor = output_B1O[:, 0]
        return output


def build_emotion_network(model: Model, config: EmotionStudentConfig) -> EmotionNetwork:
    """A new network to train, the recogniser with its heads; `torch.manual_seed` decides its weights."""
    return EmotionNetwork(plan_of(model, config), heads=model == "recognizer")


def network_of(state: Mapping[str, Tensor], where: str) -> tuple[Model, EmotionNetwork]:
    """The trained network of a state dict, whose shapes tell which of the ten it is.

    `where` names the file in errors. Raises UserError if it is none of them.
    """
    shapes = {name: tensor.shape for name, tensor in state.items()}
    for (model, _), plan in PLANS.items():
        network = EmotionNetwork(plan, heads="node_head.weight" in shapes)
        if {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes:
            network.load_state_dict(state)
            return model, network.eval()
    raise UserError(f"{where} holds none of the emotion networks: give one that jobs/train_emotion.py wrote")


def activated(logits_BO: Tensor, activation: Activation) -> Tensor:
    """The activation of [b, n]; softmax is over the second axis."""
    if activation == "softmax":
        return logits_BO.softmax(dim=1)
    if activation == "linear":
        return logits_BO
    return {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[activation](logits_BO)


def _before(mean_O: Tensor, activation: Activation) -> Tensor:
    """What the activation turns into the mean, which a little is kept away from the ends of its range."""
    if activation == "softmax":
        return mean_O.clamp_min(_TINY).log()
    if activation == "sigmoid":
        return mean_O.clamp(_INSIDE, 1 - _INSIDE).logit()
    assert activation == "tanh"
    return mean_O.clamp(_INSIDE - 1, 1 - _INSIDE).atanh()
