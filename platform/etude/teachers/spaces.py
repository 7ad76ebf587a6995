"""Audio spaces: heavy models into whose vectors words can be projected, as far as no loading is needed.

Their targets are vectors of windows of their own, [n_windows, width], and the mean of these for the track.
Figures and licences: facts/projection_and_emotion.md, a and e.
"""

from typing import ClassVar, Literal

from pydantic import Field

from etude.config import Section
from etude.teachers.paths import Weights


class AudioSpaceConfig(Section):
    """A teacher that hears windows of its own, which are not the recipe's segments.

    What it says of a library is stored and read as any teacher's, but no student learns it by segment.
    """

    title: ClassVar[str]
    license: ClassVar[str] = "CC-BY-NC-4.0"  # to be accepted before the weights are used: etude.licences
    bytes_a_second: ClassVar[float]  # of audio, that its windows take in the store

    name: str
    weights: Weights


class MuQConfig(AudioSpaceConfig):
    """The music tower of MuQ-MuLan: 512 numbers for every 120 s, 15 s apart."""

    title: ClassVar[str] = "MuQ-MuLan"
    bytes_a_second: ClassVar[float] = 512 * 4 / 15

    name: Literal["muq"] = "muq"
    weights: Weights = Field(
        "OpenMuQ/MuQ-MuLan-large", description="a folder, or a published model in Hugging Face's cache"
    )
    batch_size: int = Field(1, ge=1, description="clips of 10 s that go through the network at once")


class MertConfig(AudioSpaceConfig):
    """MERT: the means of its hidden states, 25 times 1,024 numbers for every 30 s, 5 s apart."""

    title: ClassVar[str] = "MERT"
    bytes_a_second: ClassVar[float] = 25 * 1024 * 4 / 5

    name: Literal["mert"] = "mert"
    weights: Weights = Field(
        "m-a-p/MERT-v1-330M", description="a folder, or a published model in Hugging Face's cache"
    )
    batch_size: int = Field(1, ge=1, description="windows of 30 s that go through the network at once")


class Music2LatentConfig(AudioSpaceConfig):
    """Music2Latent's latents: 192 numbers, 10.8 times a second."""

    title: ClassVar[str] = "Music2Latent"
    bytes_a_second: ClassVar[float] = 192 * 4 * 44_100 / 4_096

    name: Literal["music2latent"] = "music2latent"
    weights: Weights = Field(
        "SonyCSLParis/music2latent",
        description="a folder with music2latent.pt, or a published model in Hugging Face's cache",
    )
    batch_size: int = Field(1, ge=1, description="pieces of 10 s that go through the network at once")
