"""The network of MusiCNN (Pons and Serra, 2019), arranged to run fast on one CPU thread.

Every layer gives what the published network gives, up to rounding. Nearly all its time goes into the
convolutions of the front end, whose input is one channel wide, and of which only the maximum over the
bands is kept. Both facts are used: see `_Timbral` and `_Temporal`.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

N_FRAMES = 187  # of one patch
N_BANDS = 96
DIM = 200  # of the penultimate layer

_BATCH_NORM_EPSILON = 1e-3  # TensorFlow's default (facts/packages.md, 1)
_N_BINS = N_BANDS // 2 + 1  # of the Fourier transform over bands
# The three sizes that measured fastest: what one step writes must stay in the cache.
_FRAMES_AT_ONCE = 16
_BANDS_AT_ONCE = 24
_OUTPUTS_PER_ROW = 8
_LONGEST = 128  # frames of the longest temporal filter

Variables = Mapping[str, NDArray[np.float32]]


class MusiCNNNet(nn.Module):
    """From log-mel patches to embeddings and tags; frozen, without dropout.

    `variables` are those of the authors' checkpoint, by their TensorFlow names.
    """

    def __init__(self, variables: Variables) -> None:
        super().__init__()
        self.input = _Affine(variables, 0)
        self.timbral = nn.ModuleList(_Timbral(variables, layer) for layer in (0, 1))
        self.temporal = _Temporal(variables, (2, 3, 4))
        self.middle = nn.ModuleList(_Middle(variables, layer) for layer in (5, 6, 7))
        self.pooled = _Affine(variables, 9)
        self.dense = _linear(variables, "dense")
        self.embedding = _Affine(variables, 10)
        self.tags = _linear(variables, "dense_1")

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [b, 200], the penultimate layer, and tag logits [b, 50] of patches [b, 187, 96]."""
        normed = self.input(patches)
        front = torch.cat([*(timbral(normed) for timbral in self.timbral), self.temporal(normed)], 2)
        features = [front.transpose(1, 2)]
        for number, layer in enumerate(self.middle):
            # The first of the three changes the width, so only the others add their input.
            features.append(layer(features[-1]) + (features[-1] if number else 0.0))
        columns = torch.cat(features, 1)
        # Channel by channel, its maximum and its mean: the order of the weights that follow.
        pooled = torch.stack([columns.amax(2), columns.mean(2)], 2).flatten(1)
        embedding = self.embedding(functional.relu(self.dense(self.pooled(pooled))))
        return embedding, self.tags(embedding)


class _Affine(nn.Module):
    """Batch normalisation with fixed statistics: scale and shift along the last axis."""

    scale: Tensor
    shift: Tensor

    def __init__(self, variables: Variables, number: int) -> None:
        super().__init__()
        gamma, beta, mean, variance = (
            variables[_numbered("batch_normalization", number) + name].astype(np.float64)
            for name in ("/gamma", "/beta", "/moving_mean", "/moving_variance")
        )
        scale = gamma / np.sqrt(variance + _BATCH_NORM_EPSILON)
        self.register_buffer("scale", _tensor(scale))
        self.register_buffer("shift", _tensor(beta - scale * mean))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class _Peaks(nn.Module):
    """From a filter's largest response over the bands to the largest after ReLU and normalisation.

    Both are monotonic, so the maximum may come first. Where the scale is negative the filter's smallest
    response decides; such filters are turned round beforehand by `sign`, and back here.
    """

    sign: Tensor
    bias: Tensor

    def __init__(self, variables: Variables, layer: int) -> None:
        super().__init__()
        self.affine = _Affine(variables, layer + 1)
        self.register_buffer("sign", torch.where(self.affine.scale < 0, -1.0, 1.0))
        self.register_buffer("bias", _tensor(variables[_numbered("conv2d", layer) + "/bias"]))

    def forward(self, largest: Tensor) -> Tensor:
        """[b, 187, filters] of the same."""
        features: Tensor = self.affine(functional.relu(self.sign * largest + self.bias))
        return features

    def kernel(self, variables: Variables, layer: int) -> NDArray[np.float64]:
        """The convolution's filters with their signs: [frames, bands, filters]."""
        kernel = variables[_numbered("conv2d", layer) + "/kernel"].astype(np.float64)[:, :, 0]
        return np.asarray(kernel * self.sign.numpy())


class _Timbral(nn.Module):
    """Filters of 7 frames by 38 or 67 bands, as products in the Fourier domain over bands.

    A circular convolution over all 96 bands is right wherever the filter does not wrap, and there alone it
    is needed. The inverse transform is a matrix product whose outputs are placed symmetrically around their
    middle: an even part E and an odd part O give E + O above it and E - O below, so the larger of each pair
    is E + |O|, and half the work is saved. Against the direct form, a quarter of the multiplications.
    """

    fourier: Tensor
    filters: Tensor
    even: Tensor
    odd: Tensor

    def __init__(self, variables: Variables, layer: int) -> None:
        super().__init__()
        self.peaks = _Peaks(variables, layer)
        kernel = self.peaks.kernel(variables, layer)  # [7, width, filters]
        frequency = np.arange(_N_BINS)
        fourier = np.exp(-2j * np.pi * np.outer(np.arange(N_BANDS), frequency) / N_BANDS)
        self.register_buffer(
            "fourier", _tensor(np.stack([fourier.real, fourier.imag], 2).reshape(N_BANDS, -1))
        )

        middle = (N_BANDS - kernel.shape[1]) / 2  # of the places where the filter does not wrap
        # Every frequency but the first and the last stands for two.
        weight = np.where(frequency % (N_BANDS // 2) == 0, 1.0, 2.0) / N_BANDS
        turn = weight * np.exp(2j * np.pi * middle * frequency / N_BANDS)
        spectrum = np.fft.fft(kernel, N_BANDS, axis=1)[:, :_N_BINS].transpose(1, 2, 0)
        spectrum = np.conj(spectrum) * turn[:, None, None]  # [bins, filters, 7]
        real = np.concatenate([spectrum.real, -spectrum.imag], 2)
        imaginary = np.concatenate([spectrum.imag, spectrum.real], 2)
        self.register_buffer("filters", _tensor(np.concatenate([real, imaginary], 1)))  # [bins, 408, 14]

        offset = np.arange(middle % 1, middle + 0.5)  # of the outputs from their middle, in bands
        angle = 2 * np.pi * np.outer(offset, frequency) / N_BANDS
        self.register_buffer("even", _tensor(np.cos(angle)))
        self.register_buffer("odd", _tensor(np.sin(angle)))

    def forward(self, normed: Tensor) -> Tensor:
        """Features [b, 187, 204] of normalised patches [b, 187, 96]."""
        spectra = functional.pad(normed, (0, 0, 3, 3)) @ self.fourier  # [b, 193, bins x 2]
        windows = spectra.unfold(1, 7, 1)  # [b, 187, bins x 2, 7]
        columns = windows.permute(2, 3, 0, 1).reshape(_N_BINS, 14, -1)  # [bins, 14, b x 187]
        largest = torch.cat([self._largest(part) for part in torch.split(columns, _FRAMES_AT_ONCE, 2)], 1)
        features: Tensor = self.peaks(largest.t().view(len(normed), N_FRAMES, -1))
        return features

    def _largest(self, columns: Tensor) -> Tensor:
        """Each filter's largest response over the bands: [204, m] of m frames [bins, 14, m]."""
        real, imaginary = torch.bmm(self.filters, columns).view(_N_BINS, 2, -1).unbind(1)
        even, odd = self.even @ real, self.odd @ imaginary
        return even.add_(odd.abs_()).amax(0).view(-1, columns.shape[2])


class _Temporal(nn.Module):
    """Filters of 128, 64 and 32 frames by one band, as products of wide matrices.

    A row of the matrix is a window of one band, long enough for eight neighbouring outputs, and the filters
    stand eight times in the other, each a frame later: 9 % more multiplications than the direct form, but
    an eighth of the copying, and one copy serves the three lengths.
    """

    def __init__(self, variables: Variables, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.peaks = nn.ModuleList(_Peaks(variables, layer) for layer in layers)
        self.spans: list[slice] = []  # of the window, for each length
        for number, (peaks, layer) in enumerate(zip(self.peaks, layers, strict=True)):
            assert isinstance(peaks, _Peaks)
            kernel = peaks.kernel(variables, layer)[:, 0]  # [length, filters]
            length, n_filters = kernel.shape
            shifted = np.zeros((length + _OUTPUTS_PER_ROW - 1, _OUTPUTS_PER_ROW, n_filters))
            for output in range(_OUTPUTS_PER_ROW):
                shifted[output : output + length, output] = kernel
            self.register_buffer(f"filters_{number}", _tensor(shifted.reshape(len(shifted), -1)))
            # "Same" padding puts the odd frame on the right.
            start = (_LONGEST - 1) // 2 - (length - 1) // 2
            self.spans.append(slice(start, start + len(shifted)))

    def forward(self, normed: Tensor) -> Tensor:
        """Features [b, 187, 153] of normalised patches [b, 187, 96]."""
        left = (_LONGEST - 1) // 2
        right = _LONGEST // 2 + -N_FRAMES % _OUTPUTS_PER_ROW
        padded = functional.pad(normed.transpose(1, 2), (left, right))
        windows = padded.unfold(2, _LONGEST + _OUTPUTS_PER_ROW - 1, _OUTPUTS_PER_ROW)  # [b, 96, 24, 135]
        largest = torch.stack([self._largest(patch) for patch in windows])  # [b, lengths, 24 x 8 x 51]
        n_rows = windows.shape[2] * _OUTPUTS_PER_ROW
        each = largest.view(len(normed), len(self.spans), n_rows, -1)[:, :, :N_FRAMES].unbind(1)
        features = [peaks(one) for peaks, one in zip(self.peaks, each, strict=True)]
        return torch.cat(features, 2)

    def _largest(self, windows: Tensor) -> Tensor:
        """Each filter's largest response over the bands, of one patch's windows [96, 24, 135]."""
        groups = []
        for group in torch.split(windows, _BANDS_AT_ONCE):
            rows = group.flatten(0, 1)
            products = [rows[:, span] @ self.get_buffer(f"filters_{i}") for i, span in enumerate(self.spans)]
            groups.append(torch.stack([one.view(len(group), -1).amax(0) for one in products]))
        return torch.stack(groups).amax(0)


class _Middle(nn.Module):
    """A convolution over 7 frames, ReLU and normalisation: [b, channels, 187] to [b, 64, 187]."""

    weight: Tensor
    bias: Tensor

    def __init__(self, variables: Variables, layer: int) -> None:
        super().__init__()
        kernel = variables[_numbered("conv2d", layer) + "/kernel"][:, :, 0]  # [7, channels, 64]
        self.register_buffer("weight", _tensor(kernel.transpose(2, 1, 0)))
        self.register_buffer("bias", _tensor(variables[_numbered("conv2d", layer) + "/bias"]))
        self.affine = _Affine(variables, layer + 1)

    def forward(self, x: Tensor) -> Tensor:
        response = functional.relu(functional.conv1d(x, self.weight, self.bias, padding=3))
        features: Tensor = self.affine(response.transpose(1, 2))
        return features.transpose(1, 2)


def _linear(variables: Variables, name: str) -> nn.Linear:
    kernel = variables[f"{name}/kernel"]
    layer = nn.Linear(*kernel.shape)
    layer.load_state_dict({"weight": _tensor(kernel.T), "bias": _tensor(variables[f"{name}/bias"])})
    return layer.requires_grad_(False)


def _numbered(name: str, number: int) -> str:
    """TensorFlow leaves the first of a kind without a number."""
    return f"{name}_{number}" if number else name


def _tensor(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32, order="C"))
