"""Emotion networks that look trained: every weight and statistic is far from where it starts."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from etude.emotion.models import FILES, Model
from etude.errors import UserError
from etude.export.emotion_network import TOLERANCE, difference_of, usual_inputs
from etude.export.onnx import export_onnx
from etude.export.rtneural import write_rtneural
from etude.students.emotion import EmotionNetwork, LstmBlock
from etude.students.emotion_layers import PLANS, Variant
from etude.systems.emotion import export_spec

TEN: list[tuple[Model, Variant]] = list(PLANS)


def lived_in(model: Model, variant: Variant, *, heads: bool = False, seed: int = 0) -> EmotionNetwork:
    """A network with random batch statistics, standardisation and recurrent weights, to run."""
    torch.manual_seed(seed)
    network = EmotionNetwork(PLANS[model, variant], heads=heads)
    with torch.no_grad():
        if network.plan.standardised:
            scale = 10 ** torch.empty(network.plan.n_in).uniform_(-3, 3)  # a share, decibels, hertz
            network.standardise_by(3 * scale * torch.randn_like(scale), scale)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.weight.uniform_(0.3, 2).mul_(torch.randn_like(module.weight).sign())
                module.bias.normal_()
                module.momentum = 1.0
            elif isinstance(module, LstmBlock):
                for weight in module.weights:
                    weight.normal_(std=0.1)
        inputs = torch.from_numpy(usual_inputs(network, 64))
        network.train()(inputs)  # from here on batch norm knows the statistics of what comes
        logits = network.eval().logits(inputs)  # which are to depend on what is asked
        network.last.weight /= (logits - logits.mean(dim=0)).std()
        network.last.bias += 0.5 * torch.randn_like(network.last.bias) - network.logits(inputs).mean(dim=0)
    return network


@dataclass(frozen=True)
class EmotionFiles:
    """What was written of one network."""

    onnx: Path
    rtneural: Path  # JSON
    weights: Path  # .safetensors
    difference: float  # largest, of one number, between ONNX and PyTorch


def export_emotion(model: Model, network: EmotionNetwork, folder: Path) -> EmotionFiles:
    """Write a network's three files into a folder that exists.

    Raises UserError if its weights are no longer numbers, or if the ONNX file does not agree with PyTorch.
    """
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=folder) as unchecked:
        stem = Path(unchecked) / FILES[model]
        json_file, weights = stem.with_suffix(".json"), stem.with_suffix(".safetensors")
        write_rtneural(network, FILES[model], json_file)
        safetensors.torch.save_file(state, weights)
        path = export_onnx(export_spec(model, network), Path(unchecked))
        difference = difference_of(network, path)
        if not difference <= TOLERANCE:
            raise UserError(
                f"the export of {FILES[model]} does not agree with PyTorch: it differs by {difference:.1e}, "
                f"allowed is {TOLERANCE:.0e}; the files were not kept"
            )
        placed = [folder / file.name for file in (path, json_file, weights)]
        for file in placed:
            os.replace(Path(unchecked) / file.name, file)
    return EmotionFiles(placed[0], placed[1], placed[2], difference)
