"""The files of an emotion network: ONNX, RTNeural's JSON, and the weights as they were trained."""

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from etude.emotion.models import Model
from etude.errors import UserError
from etude.export.onnx import run_onnx, session
from etude.students.emotion import EmotionNetwork, network_of
from etude.systems.base import part_of
from etude.training.checkpoint import load_checkpoint

TOLERANCE = 1e-5  # of one number, against PyTorch: the seed's
COMPARED = 256  # inputs


def read_network(path: Path) -> tuple[Model, EmotionNetwork]:
    """The network of a run's checkpoint, or of the .safetensors file beside an export, to run.

    Raises UserError if the file cannot be read, or holds none of the emotion networks.
    """
    if path.suffix != ".safetensors":
        state = load_checkpoint(path).get("model")
        return network_of(part_of(state, "network") if isinstance(state, dict) else {}, str(path))
    try:
        return network_of(safetensors.torch.load_file(path), str(path))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the weights {path} ({error}): export the network again") from error


def difference_of(network: EmotionNetwork, onnx_file: Path) -> float:
    """The largest difference of one number between a file and PyTorch; nan if one of them gives one."""
    input_NI = usual_inputs(network, COMPARED)
    found = run_onnx(session(onnx_file), input_NI, 64)
    return float(np.abs(found - answers(network, input_NI)).max())


def answers(network: EmotionNetwork, input_NI: NDArray[np.float32]) -> NDArray[np.float32]:
    """What PyTorch gives for inputs [n, n_in]: outputs [n, n_out]."""
    was_training, device = network.training, network.last.weight.device
    network.eval()
    with torch.inference_mode():
        output: NDArray[np.float32] = network(torch.from_numpy(input_NI).to(device)).cpu().numpy()
    network.train(was_training)
    return output


def usual_inputs(network: EmotionNetwork, n: int) -> NDArray[np.float32]:
    """Normal noise [n, n_in], as large as what the network standardises by."""
    noise_NI = np.random.default_rng(0).normal(size=(n, network.plan.n_in))
    if network.plan.standardised:
        noise_NI = network.mean.cpu().numpy() + network.spread.cpu().numpy() * noise_NI
    return noise_NI.astype(np.float32)
