"""Whether a JSON file for RTNeural is one, and holds a given network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from etude.errors import UserError
from etude.export.rtneural import VERSION, rtneural
from etude.students.emotion import EmotionNetwork
from etude.students.emotion_layers import Activation, Plan

_SAME = 1e-6  # of one weight, relative to 1 or to its size


def rtneural_issues(path: Path, plan: Plan, network: EmotionNetwork | None) -> Iterator[str]:
    """What is wrong with a file: its form, its sizes, and with a network its weights; one sentence each."""
    try:
        content = json.loads(path.read_text(), parse_constant=_no_number)
        layers = [_arrays(layer) for layer in content["layers"]]
        metadata = {name: content["metadata"][name] for name in ("export_version", "parameter_count")}
        chain = [(layer["in_size"], layer["out_size"]) for layer in content["layers"]]
        last = content["layers"][-1]["activation"]
    except OSError as error:
        yield f"{path.name} cannot be read ({error.strerror})"
        return
    except KeyError as error:
        yield f"{path.name} is not in RTNeural's form: {error} is missing"
        return
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        yield f"{path.name} is not in RTNeural's form: {error}"
        return
    if metadata["export_version"] != VERSION:
        yield f"{path.name} is version {metadata['export_version']}, version {VERSION} is wanted"
    sizes = [plan.n_in, *(n_out for _, n_out in chain)]
    if [n_in for n_in, _ in chain] != sizes[:-1] or sizes[-1] != plan.output.n_out:
        yield (
            f"{path.name} leads from {chain[0][0]} to {sizes[-1]} numbers through layers {chain}: it must "
            f"lead from {plan.n_in} to {plan.output.n_out}"
        )
    if last != plan.output.activation:
        yield f"{path.name} ends in {last}, it must end in {plan.output.activation}"
    n_parameters = sum(array.size for layer in layers for array in layer.values())
    if metadata["parameter_count"] != n_parameters:
        yield f"{path.name} says it has {metadata['parameter_count']} parameters, it has {n_parameters}"
    try:
        if network is not None and not _same(content["layers"], layers, network):
            yield f"{path.name} does not hold the weights that PyTorch has: export the network again"
    except UserError as error:
        yield str(error)  # PyTorch's are no numbers


def _arrays(layer: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    """A layer's weights by name. Raises ValueError, KeyError or TypeError if it is not in RTNeural's form."""
    n_in, n_out = layer["in_size"], layer["out_size"]
    if layer["type"] == "dense":
        if layer["activation"] not in get_args(Activation):
            raise ValueError(f"there is no activation {layer['activation']}")
        wanted = {"weights": (n_out, n_in), "bias": (n_out,)}
    elif layer["type"] == "lstm":
        wanted = {"weights_ih": (4, n_out, n_in), "weights_hh": (4, n_out, n_out)}
        wanted |= {"bias_ih": (4, n_out), "bias_hh": (4, n_out)}
    else:
        raise ValueError(f"there is no layer type {layer['type']}")
    arrays = {name: np.asarray(layer[name], dtype=np.float64) for name in wanted}
    for name, array in arrays.items():
        if array.shape != wanted[name]:
            raise ValueError(f"{name} has shape {list(array.shape)} where {list(wanted[name])} belongs")
        if not np.isfinite(array).all():
            raise ValueError(f"a number among {name} is too large")
    return arrays


def _same(
    raw: list[dict[str, Any]], found: list[dict[str, NDArray[np.float64]]], network: EmotionNetwork
) -> bool:
    wanted = rtneural(network, "PyTorch")["layers"]
    return len(wanted) == len(found) and all(
        one["type"] == other["type"]
        and one.get("activation") == other.get("activation")
        and all(
            array.shape == np.shape(other[name]) and np.allclose(array, other[name], rtol=_SAME, atol=_SAME)
            for name, array in arrays.items()
        )
        for one, arrays, other in zip(raw, found, wanted, strict=True)
    )


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number")
