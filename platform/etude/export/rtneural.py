"""An emotion network as JSON for RTNeural, in the form that the plug-in reads (version 2).

The form: facts/projection_and_emotion.md, b. Every layer carries its own activation. An LSTM's gates come in
PyTorch's order (input, forget, cell, output), weights [4][n_out][n_in] and biases [4][n_out].
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.errors import UserError
from etude.students.emotion import DenseBlock, EmotionNetwork, LstmBlock
from etude.students.emotion_folding import folded
from etude.students.emotion_layers import Dense

VERSION = "2.0"


def rtneural(network: EmotionNetwork, name: str) -> dict[str, Any]:
    """The JSON of a network as plain values, batch norm and standardisation folded into the weights.

    Raises UserError if a weight is not a finite number, for which JSON has no word.
    """
    plain = folded(network, standardisation=True)
    if not all(torch.isfinite(value).all() for value in plain.state_dict().values()):
        raise UserError(f"weights of {name} are no longer numbers: train it anew with a lower learning rate")
    plan, n_parameters = plain.plan, plain.plan.parameters
    return {
        "layers": [
            _layer(block, n_in, layer.activation if isinstance(layer, Dense) else "")
            for block, n_in, layer in zip(plain.blocks, plan.sizes_in, plan.layers, strict=True)
        ],
        "metadata": {
            "model_name": name,
            "framework": "PyTorch",
            "export_version": VERSION,
            "parameter_count": n_parameters,
            "memory_bytes": 4 * n_parameters,
            "input_size": plan.n_in,
            "output_size": plan.output.n_out,
        },
    }


def write_rtneural(network: EmotionNetwork, name: str, path: Path) -> None:
    """Write `rtneural(network, name)`."""
    path.write_text(json.dumps(rtneural(network, name), separators=(",", ":"), allow_nan=False))


def _layer(block: torch.nn.Module, n_in: int, activation: str) -> dict[str, Any]:
    if isinstance(block, DenseBlock):
        return {
            "type": "dense",
            "in_size": n_in,
            "out_size": block.linear.out_features,
            "activation": activation,
            "weights": _numbers(block.linear.weight),
            "bias": _numbers(block.linear.bias),
        }
    assert isinstance(block, LstmBlock)
    n_out = block.lstm.hidden_size
    weight_ih, weight_hh, bias_ih, bias_hh = block.weights
    return {
        "type": "lstm",
        "in_size": n_in,
        "out_size": n_out,
        "weights_ih": _numbers(weight_ih.view(4, n_out, n_in)),
        "weights_hh": _numbers(weight_hh.view(4, n_out, n_out)),
        "bias_ih": _numbers(bias_ih.view(4, n_out)),
        "bias_hh": _numbers(bias_hh.view(4, n_out)),
    }


def _numbers(values: Tensor) -> Any:
    """Nested lists whose decimals are the shortest that give the same float32 again: half the file."""
    exact: NDArray[np.float32] = values.detach().cpu().numpy().astype(np.float32)
    return exact.astype("U").astype(np.float64).tolist()
