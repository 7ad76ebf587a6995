"""What a plug-in does with RTNeural's JSON, in NumPy: written from the form alone, not from the exporter.

The gates of an LSTM come as input, forget, cell, output, and its memory begins at zero.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))  # does not overflow


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}


class Interpreter:
    """Runs a model as a plug-in does, one call after another; LSTMs remember until `reset`."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.layers = content["layers"]
        self.reset()

    def reset(self) -> None:
        """Forget what was before."""
        self.memory: dict[int, tuple[Array, Array]] = {}

    def __call__(self, x_NI: Array) -> Array:
        """Outputs [n, n_out] of the next step of n sequences."""
        x = np.asarray(x_NI, dtype=np.float64)
        for number, layer in enumerate(self.layers):
            assert x.shape[1] == layer["in_size"]
            x = self._dense(layer, x) if layer["type"] == "dense" else self._lstm(number, layer, x)
            assert x.shape[1] == layer["out_size"]
        return x

    def _dense(self, layer: dict[str, Any], x: Array) -> Array:
        return ACTIVATIONS[layer["activation"]](x @ np.array(layer["weights"]).T + np.array(layer["bias"]))

    def _lstm(self, number: int, layer: dict[str, Any], x: Array) -> Array:
        nothing = np.zeros((len(x), layer["out_size"]))
        hidden, cell = self.memory.get(number, (nothing, nothing))
        weights_ih, weights_hh = np.array(layer["weights_ih"]), np.array(layer["weights_hh"])
        bias_ih, bias_hh = np.array(layer["bias_ih"]), np.array(layer["bias_hh"])
        gates = [x @ weights_ih[g].T + bias_ih[g] + hidden @ weights_hh[g].T + bias_hh[g] for g in range(4)]
        let_in, keep, let_out = _sigmoid(gates[0]), _sigmoid(gates[1]), _sigmoid(gates[3])
        cell = keep * cell + let_in * np.tanh(gates[2])
        hidden = let_out * np.tanh(cell)
        self.memory[number] = (hidden, cell)
        return hidden
