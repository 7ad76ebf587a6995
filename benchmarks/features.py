"""From a compressed file to log-mels on one core: Étude against librosa, on the same files in the same run.

    python benchmarks/features.py

The baseline is what AudioMuse-AI's student training does: librosa loads the file at 48 kHz, mono, and then
computes a mel for every 10 s segment. Both start from the file's bytes in memory.
"""

import io
import itertools
import time
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

import librosa
import midirenderer
import numpy as np
import soundfile
from music21 import corpus
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from etude.audio.decode import decode
from etude.audio.mel import log_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.audio.waveform import prepare_waveform

CHORALES = ("bwv66.6", "bwv7.7", "bwv26.6", "bwv244.10")
FORMATS = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("FLAC", "PCM_16"))
SAMPLE_RATE = 44_100  # as most music; both sides must resample
LEAST_DURATION_S = 180.0  # of one file: a song's


def rendered_files() -> list[bytes]:
    """Twelve stereo files: every chorale in every format, repeated to the length of a song."""
    files = []
    for name, (container, codec) in itertools.product(CHORALES, FORMATS):
        file = io.BytesIO()
        with soundfile.SoundFile(file, "w", SAMPLE_RATE, 2, format=container, subtype=codec) as output:
            for second in np.array_split(_rendered(name), int(LEAST_DURATION_S)):
                output.write(second)  # libsndfile's Vorbis encoder overflows its stack on a whole song
        files.append(file.getvalue())
    return files


def librosa_features(data: bytes, recipe: FeatureRecipe) -> NDArray[np.float32]:
    """Mels [n_segments, n_mels, n_frames] of a file, the baseline's way."""
    waveform, _ = librosa.load(io.BytesIO(data), sr=recipe.sample_rate, mono=True)
    waveform = (np.clip(waveform, -1.0, 1.0) * 32767.0).astype(np.int16) / np.float32(32767.0)
    mels = []
    for segment in segments_of(len(waveform), recipe).cut(waveform, recipe.sample_rate):
        power = librosa.feature.melspectrogram(
            y=segment,
            sr=recipe.sample_rate,
            n_fft=recipe.n_fft,
            hop_length=recipe.hop_length,
            n_mels=recipe.n_mels,
            fmin=recipe.fmin,
            fmax=recipe.fmax,
            pad_mode=recipe.pad_mode,
        )
        mels.append(librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None))
    return np.stack(mels)


def etude_features(data: bytes, recipe: FeatureRecipe) -> NDArray[np.float16]:
    """The stored mel frames [n_stored, n_mels] of a file, this package's way."""
    return log_mel(prepare_waveform(decode(data), recipe), recipe).frames.astype(np.float16)


def cpu_seconds(
    ways: Sequence[Callable[[bytes, FeatureRecipe], object]], files: Sequence[bytes]
) -> list[float]:
    """Processor time in seconds of each way over all files; the first file is done once before, to warm up.

    The ways take turns on every file, and other programs' time does not count, so the ratio is steady on a
    machine that has other work.
    """
    recipe = FeatureRecipe()
    seconds = [0.0] * len(ways)
    for features in ways:
        features(files[0], recipe)
    for data in files:
        for i, features in enumerate(ways):
            start = time.process_time()
            features(data, recipe)
            seconds[i] += time.process_time() - start
    return seconds


def main() -> None:
    """Measure both and print their rates and the ratio."""
    files = rendered_files()
    duration_s = sum(decode(data).duration_s for data in files)
    print(f"{len(files)} files, {duration_s / 60:.1f} minutes of audio, one core")
    with threadpool_limits(limits=1):
        baseline_s, ours_s = cpu_seconds([librosa_features, etude_features], files)
    print(f"librosa  {duration_s / baseline_s:8.0f} x realtime")
    print(f"etude    {duration_s / ours_s:8.0f} x realtime")
    print(f"ratio    {baseline_s / ours_s:8.2f}  (must be at least 2.5)")


def _rendered(name: str) -> NDArray[np.float32]:
    """A chorale [n, 2] at SAMPLE_RATE, repeated."""
    soundfont = Path(str(distribution("pretty_midi").locate_file("pretty_midi/TimGM6mb.sf2")))
    with TemporaryDirectory() as folder:
        midi = Path(corpus.parse(f"bach/{name}").write("midi", fp=Path(folder) / "score.mid"))
        wav = midirenderer.render_wave_from(soundfont.read_bytes(), midi.read_bytes())
    samples, sample_rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    samples = librosa.resample(samples, orig_sr=sample_rate, target_sr=SAMPLE_RATE, axis=0)
    samples *= 0.9 / np.abs(samples).max()
    return np.tile(samples, (int(np.ceil(LEAST_DURATION_S * SAMPLE_RATE / len(samples))), 1))


if __name__ == "__main__":
    main()
