"""The music tower of MuQ-MuLan (Zhu et al., 2025, arXiv 2501.01108) with the tensors' published names.

The authors' package `muq` 0.1.0 does not run with Transformers 5, and builds its text tower, from weights of
its own, even where only music is heard. So the tower stands here, on Transformers' own Conformer, and takes
nothing from the package. Its vectors are the package's: see tests/teachers/data/README.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.audio.torchaudio_cpu import import_torchaudio
from etude.teachers.weights import fill

SAMPLE_RATE = 24_000  # Hz
_N_FFT = 2048
_LABELS_TO_STRIDES = {25: (2, 2), 50: (2, 1)}  # labels a second, to strides over frames
_TIMES_COSINE = 8.0  # of queries and keys, before the softmax

_WHAT = "MuQ-MuLan"
_PREFIXES = {
    "subsampling": "mulan.audio.model.model.conv.",
    "conformer": "mulan.audio.model.model.conformer.",
    "narrow": "mulan.audio.proj.",
    "transformer": "mulan.audio.transformer.",
    "to_latent": "mulan.audio_to_latents.",
}


class MuQMuLanNet(nn.Module):
    """From clips [b, samples] at 24 kHz to vectors [b, dim_latent] of length 1; frozen.

    `mulan` is the config.json of MuQ-MuLan, `muq` that of the MuQ within it, which also holds the mean and
    the deviation of its mel. Raises KeyError, TypeError or ValueError if they describe something else.
    """

    def __init__(self, mulan: Mapping[str, Any], muq: Mapping[str, Any]) -> None:
        super().__init__()
        upper = mulan["audio_transformer"]
        self.mel = _Mel(muq)
        self.subsampling = _Subsampling(muq)
        self.conformer = _conformer(muq, mulan["audio_model"]["use_layer_idx"])
        self.narrow = nn.Linear(mulan["audio_model"]["model_dim"], upper["dim"])
        self.transformer = _Transformer(upper)
        self.to_latent = nn.Linear(upper["dim"], mulan["mulan"]["dim_latent"])
        self.eval().requires_grad_(False)

    def load(self, tensors: Mapping[str, Tensor], file: Path) -> None:
        """Fill in the published tensors. Raises UserError if one is missing, or has another shape."""
        for name, prefix in _PREFIXES.items():
            fill(self.get_submodule(name), tensors, prefix, file, _WHAT)

    def forward(self, clips_BN: Tensor) -> Tensor:
        """Vectors [b, dim_latent]."""
        frames_BTD = self.subsampling(self.mel(clips_BN))
        heard_BTD = self.conformer(frames_BTD).last_hidden_state
        mean_BD = self.transformer(self.narrow(heard_BTD)).mean(1)
        return functional.normalize(self.to_latent(mean_BD), dim=1)


class _Mel(nn.Module):
    """Clips [b, samples] to normalised decibels [b, bands, frames], without the last frame."""

    def __init__(self, muq: Mapping[str, Any]) -> None:
        super().__init__()
        transforms = import_torchaudio().transforms
        self.mel = transforms.MelSpectrogram(
            sample_rate=SAMPLE_RATE, n_fft=_N_FFT, hop_length=muq["hop_length"], n_mels=muq["n_mels"]
        )
        self.decibels = transforms.AmplitudeToDB()
        self._mean, self._deviation = (float(muq["stat"][f"melspec_2048_{name}"]) for name in ("mean", "std"))

    def forward(self, clips_BN: Tensor) -> Tensor:
        mel_BFT: Tensor = self.decibels(self.mel(clips_BN))[..., :-1]
        return (mel_BFT - self._mean) / self._deviation


class _Subsampling(nn.Module):
    """[b, bands, frames] to [b, frames / 4, width]."""

    def __init__(self, muq: Mapping[str, Any]) -> None:
        super().__init__()
        channels = muq["conv_dim"]
        first, second = _LABELS_TO_STRIDES[muq["label_rate"]]
        self.conv = nn.Sequential(_Residual(1, channels, first), _Residual(channels, channels, second))
        self.linear = nn.Linear(channels * (muq["n_mels"] // 4), muq["encoder_dim"])

    def forward(self, mel_BFT: Tensor) -> Tensor:
        found_BCFT = self.conv(mel_BFT[:, None])
        found_BTD: Tensor = self.linear(found_BCFT.permute(0, 3, 1, 2).flatten(2))
        return found_BTD


class _Residual(nn.Module):
    """Two convolutions beside one, over half the bands."""

    def __init__(self, taken: int, given: int, frames: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(taken, given, 3, (2, frames), 1)
        self.bn1 = nn.BatchNorm2d(given)
        self.conv2 = nn.Conv2d(given, given, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(given)
        self.conv3 = nn.Conv2d(taken, given, 3, (2, frames), 1)
        self.bn3 = nn.BatchNorm2d(given)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.bn3(self.conv3(x)))


def _conformer(muq: Mapping[str, Any], layer: int) -> Any:
    """Transformers' Conformer up to the hidden state that is asked for; the last is behind a norm."""
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder

    depth = muq["encoder_depth"]
    wanted = range(depth + 1)[layer]
    sizes = {"num_hidden_layers": depth, "hidden_size": muq["encoder_dim"]}
    known = Wav2Vec2ConformerConfig().to_dict().keys() - {"model_type", "transformers_version", "dtype"}
    given = {name: value for name, value in muq["w2v2_config"].items() if name in known}
    config = Wav2Vec2ConformerConfig(**(given | sizes), attn_implementation="sdpa")
    encoder = Wav2Vec2ConformerEncoder(config)
    encoder.pos_conv_embed = nn.Identity()  # of the published tensors too, but in no use
    if wanted < depth:
        encoder.layers = encoder.layers[:wanted]
        encoder.layer_norm = nn.Identity()
    return encoder


class _Transformer(nn.Module):
    """Layers of attention and of a gated feed-forward network, each beside what it was given."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([_Attention(sizes), _feed_forward(sizes)]) for _ in range(sizes["tf_depth"])
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        for layer in self.layers:
            attention, feed_forward = layer.children()
            x_BTD = attention(x_BTD) + x_BTD
            x_BTD = feed_forward(x_BTD) + x_BTD
        return x_BTD


class _Attention(nn.Module):
    """Attention by the cosine of queries and keys, whose directions are scaled number by number."""

    def __init__(self, sizes: Mapping[str, Any]) -> None:
        super().__init__()
        self._heads = sizes["heads"]
        width = self._heads * sizes["dim_head"]
        self.norm = _Norm(sizes["dim"])
        self.to_q = nn.Linear(sizes["dim"], width, bias=False)
        self.to_kv = nn.Linear(sizes["dim"], 2 * width, bias=False)
        self.q_scale = nn.Parameter(torch.ones(sizes["dim_head"]))
        self.k_scale = nn.Parameter(torch.ones(sizes["dim_head"]))
        self.to_out = nn.Sequential(nn.Linear(width, sizes["dim"], bias=False))

    def forward(self, x_BTD: Tensor) -> Tensor:
        normed = self.norm(x_BTD)
        projected = (self.to_q(normed), *self.to_kv(normed).chunk(2, dim=-1))
        q, k, v = (one.unflatten(2, (self._heads, -1)).transpose(1, 2) for one in projected)
        q, k = functional.normalize(q, dim=-1) * self.q_scale, functional.normalize(k, dim=-1) * self.k_scale
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=_TIMES_COSINE)
        found: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return found


def _feed_forward(sizes: Mapping[str, Any]) -> nn.Sequential:
    hidden = int(sizes["dim"] * sizes["ff_mult"] * 2 / 3)
    return nn.Sequential(
        _Norm(sizes["dim"]),
        nn.Linear(sizes["dim"], 2 * hidden, bias=False),
        _Gate(),
        nn.Identity(),  # dropout, in training; the last layer's number counts it
        nn.Linear(hidden, sizes["dim"], bias=False),
    )


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return functional.gelu(gate) * value


class _Norm(nn.Module):
    """Layer normalisation without a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.learned_gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.learned_gamma)
