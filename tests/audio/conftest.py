"""The chorale as arrays, and files made of it with FFmpeg's own encoders."""

import io
from collections.abc import Callable

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from etude.audio.decode import Audio
from etude.audio.recipe import FeatureRecipe
from etude.audio.waveform import prepare_waveform

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def chorale(chorale_wav: bytes) -> NDArray[np.float32]:
    """The chorale [2, n] at 48 kHz, made louder and its channels unequal."""
    samples = soundfile.read(io.BytesIO(chorale_wav), dtype="float32", always_2d=True)[0].T
    return np.ascontiguousarray(samples * np.array([[5.0], [3.0]], np.float32))


@pytest.fixture(scope="session")
def waveform(chorale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The chorale [n] as features are computed from it."""
    return prepare_waveform(Audio(chorale.mean(axis=0), 48_000), FeatureRecipe())


@pytest.fixture(scope="session")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Encode:
    """encode(samples [channels, n], container, codec, rate, **container options) -> the file's bytes."""

    def encoded(
        samples: NDArray[np.float32], container: str, codec: str, rate: int = 48_000, **options: str
    ) -> bytes:
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
        file = tmp_path_factory.mktemp("encoded") / "music"  # "faststart" must open it again
        with av.open(str(file), "w", format=container, options=options) as output:
            # FFmpeg calls its Vorbis encoder experimental.
            stream = output.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            for source in (frame, None):
                output.mux(stream.encode(source))
        return file.read_bytes()

    return encoded
