"""What ten seconds of music cost in ONNX Runtime on one thread: students, MobileNetV3-Large, CLAP's network.

    pip install --no-deps torchvision==0.28.0 pillow
    python benchmarks/inference.py [--rounds 30]

MobileNetV3-Large is torchvision's without its classifier, its first convolution for one channel, on the same
128 x 1001 mel as the students. CLAP is transformers' ClapAudioModelWithProjection on its own 1001 x 64 mel,
in two sizes: HTSAT-base, as in the LAION checkpoint that AudioMuse-AI's file was made of, and HTSAT-tiny, the
library's default. All weights are random, and batch norms have seen a made-up batch, so that no layer works
on numbers too small for the processor's fast path. The networks take turns. A figure is the median of the
processor's time, in which other programs' does not count.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from etude.audio.augment import AugmentConfig
from etude.audio.recipe import FeatureRecipe
from etude.audio.torchaudio_cpu import import_torchaudio
from etude.cli import guarded, say
from etude.errors import UserError
from etude.export.onnx import OPSET, export_onnx, session
from etude.objectives.distillation import ObjectiveConfig
from etude.students import StudentConfig
from etude.systems.base import ExportSpec
from etude.systems.student_clap import StudentClap
from etude.teachers.clap import DIM
from etude.teachers.clap import RECIPE as CLAP_RECIPE

RECIPE = FeatureRecipe()
SEGMENT_S = RECIPE.segment_samples / RECIPE.sample_rate
STUDENTS = {
    "mobilenet 1.0": StudentConfig(name="mobilenet", width=1.0),
    "mobilenet 1.0, 20 ms": StudentConfig(name="mobilenet", width=1.0, frame_stride=2),
    "mobilenet 0.4": StudentConfig(name="mobilenet", width=0.4),
    "dynamic_mobilenet 1.0": StudentConfig(name="dynamic_mobilenet", width=1.0),
    "tinyclap 1.0": StudentConfig(name="tinyclap", width=1.0),
    "convnet 1.0": StudentConfig(name="convnet", width=1.0),
}
BARE, WAVEFORM = "MobileNetV3-Large", "mobilenet 1.0, waveform"
CLAPS: dict[str, dict[str, Any]] = {
    "CLAP, HTSAT-base": {"patch_embeds_hidden_size": 128, "hidden_size": 1024, "depths": [2, 2, 12, 2]},
    "CLAP, HTSAT-tiny": {},
}
HTSAT_FRAMES = 1024  # to which HTSAT stretches a mel
MOST_OF_MOBILENET, LEAST_OF_CLAP, LEAST_REALTIME = 1.5, 50, 150


class Timed:
    """An exported network with an input for one segment, and its milliseconds so far."""

    def __init__(self, path: Path, parameters: int, segment: NDArray[np.float32]) -> None:
        self.parameters = parameters
        self.ms: list[float] = []
        self._opened = session(path)
        self._input = {self._opened.get_inputs()[0].name: segment}
        self._opened.run(None, self._input)  # the first run allocates

    def run(self) -> None:
        start = time.process_time()
        self._opened.run(None, self._input)
        self.ms.append(1e3 * (time.process_time() - start))

    @property
    def median(self) -> float:
        return statistics.median(self.ms)


class BareMobileNet(nn.Module):
    """torchvision's MobileNetV3-Large up to its pooled features: [b, 1, 128, 1001] to [b, 960]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _torchvision().models.mobilenet_v3_large().features
        stem = self.features[0]
        stem[0] = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)

    def forward(self, mel_spectrogram: Tensor) -> Tensor:
        pooled: Tensor = functional.adaptive_avg_pool2d(self.features(mel_spectrogram), 1)
        return pooled.flatten(1)


class ClapAudio(nn.Module):
    """CLAP's audio encoder: mels [b, 1, 1001, 64] to vectors [b, 512]."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        import_torchaudio()  # transformers looks for it
        from transformers import ClapAudioConfig, ClapAudioModelWithProjection

        self.model = ClapAudioModelWithProjection(ClapAudioConfig(attn_implementation="eager", **sizes))

    def forward(self, mel_spectrogram: Tensor) -> Tensor:
        # The library stretches only what it finds too short by asking, and an exported graph cannot ask.
        size = (HTSAT_FRAMES, CLAP_RECIPE.n_mels)
        stretched = functional.interpolate(mel_spectrogram, size, mode="bicubic", align_corners=True)
        embedding: Tensor = self.model(input_features=stretched).audio_embeds
        return embedding


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    chosen = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        networks = _networks(Path(folder))
    for _ in range(chosen.rounds):
        for network in networks.values():
            network.run()
    _report(networks)
    return 0


def _networks(folder: Path) -> dict[str, Timed]:
    """Every network by name, exported and opened."""
    mels = _mels(8, RECIPE.n_mels, RECIPE.n_frames)
    bare = _settled(BareMobileNet(), mels)
    path = export_onnx(ExportSpec("bare", bare, {"mel_spectrogram": mels[:2]}), folder)
    networks = {BARE: Timed(path, _size(bare), mels[:1].numpy())}
    for name, config in STUDENTS.items():
        system = StudentClap(config, ObjectiveConfig(), AugmentConfig(), RECIPE, dim=DIM, normalized=True)
        _settled(system.student, mels[:, 0])
        over_mel, over_waveform = system.exports()
        networks[name] = Timed(export_onnx(over_mel, folder), _size(system), mels[:1].numpy())
        if WAVEFORM.startswith(name):
            samples = 0.1 * torch.randn(1, RECIPE.segment_samples)
            networks[WAVEFORM] = Timed(export_onnx(over_waveform, folder), _size(system), samples.numpy())
    mels = _mels(2, CLAP_RECIPE.n_mels, CLAP_RECIPE.n_frames).mT.contiguous()
    for name, sizes in CLAPS.items():
        clap = _settled(ClapAudio(sizes), mels)
        networks[name] = Timed(_exported_clap(clap, mels, folder), _size(clap), mels[:1].numpy())
    return networks


def _exported_clap(clap: nn.Module, mels_B1TF: Tensor, folder: Path) -> Path:
    """By PyTorch's older exporter, which does in seconds what takes the newer minutes."""
    path = folder / "clap.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            clap, (mels_B1TF,), path, input_names=["mel_spectrogram"], output_names=["embedding"],
            dynamic_axes={"mel_spectrogram": {0: "batch"}}, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    return path


def _report(networks: dict[str, Timed]) -> None:
    ms = {name: network.median for name, network in networks.items()}
    bare, student, (base, tiny) = ms[BARE], ms["mobilenet 1.0"], [ms[name] for name in CLAPS]
    heads = ("ms", "x realtime", "x bare", "base takes", "tiny takes")
    say(f"{'':24}{'parameters':>12}" + "".join(f"{head:>12}" for head in heads))
    for name, network in networks.items():
        one = ms[name]
        say(
            f"{name:24}{network.parameters / 1e6:10.2f} M{one:12.1f}{1e3 * SEGMENT_S / one:12.0f}"
            f"{one / bare:12.2f}{base / one:10.1f} x{tiny / one:10.1f} x"
        )
    realtime = 1e3 * SEGMENT_S / ms[WAVEFORM]
    say(f"mobilenet 1.0 over {BARE}  {student / bare:8.2f}  (must be at most {MOST_OF_MOBILENET})")
    for name in CLAPS:
        say(f"{name} over mobilenet 1.0   {ms[name] / student:8.1f}  (must be at least {LEAST_OF_CLAP})")
    say(f"waveform form, times realtime         {realtime:8.0f}  (must be at least {LEAST_REALTIME})")


def _torchvision() -> ModuleType:
    """torchvision for its networks alone: its compiled operators need the CUDA that a CPU's PyTorch lacks."""
    if torch.version.cuda is None:
        for name in ("torchvision._meta_registrations", "torchvision._autograd_registrations"):
            sys.modules.setdefault(name, ModuleType(name))  # would describe those operators, and fail
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise UserError(
            f"MobileNetV3-Large is torchvision's, and {error.name} is not installed: "
            "pip install --no-deps torchvision==0.28.0 pillow"
        ) from error


def _mels(n: int, n_mels: int, n_frames: int) -> Tensor:
    """Made-up mels [n, 1, n_mels, n_frames] in dB: bands of different levels, falling, with some noise."""
    levels = -20.0 - 40.0 * torch.linspace(0, 1, n_mels) + 8.0 * torch.randn(n, n_mels)
    return levels[:, None, :, None] + 6.0 * torch.randn(n, 1, n_mels, n_frames)


@torch.no_grad()
def _settled(module: nn.Module, mels: Tensor) -> nn.Module:
    """The module as after training in one respect: its batch norms know what comes to them."""
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    module.train()(mels)
    return cast(nn.Module, module.eval())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
