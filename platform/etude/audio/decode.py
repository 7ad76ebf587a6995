"""From the bytes of a music file to mono samples at the file's own rate."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import soxr
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from etude.audio.completeness import missing_end, protection
from etude.errors import BadAudio

# Only formats that carry their own audio: playlists, which FFmpeg also reads, would open other files.
_FORMATS = "mp3,aac,flac,ogg,wav,w64,aiff,caf,mov,matroska,asf,wv,tta,ape,mpc,mpc8,au"
# FFmpeg's name of a sample format, without the p of planar: NumPy type, value of silence, full scale.
_SAMPLE_TYPES: dict[str, tuple[str, int, int]] = {
    "u8": ("u1", 2**7, 2**7),
    "s16": ("i2", 0, 2**15),
    "s32": ("i4", 0, 2**31),
    "flt": ("f4", 0, 1),
    "dbl": ("f8", 0, 1),
}
_BLOCK = 1 << 14  # samples; a stereo block stays in the processor's cache
_MOST_RESERVED = 1 << 28  # samples; an hour and a half at 48 kHz
_MOST_DAMAGED_PACKETS = 0.02  # share; players skip a few without anyone hearing it

# Its messages come back as exceptions; on stderr they would tear the progress bars.
av.logging.set_libav_level(av.logging.PANIC)


@dataclass(frozen=True, eq=False)
class Audio:
    """One decoded track: samples [n], float32, mono, at the file's own rate in Hz."""

    samples: NDArray[np.float32]
    sample_rate: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    def resampled(self, sample_rate: int) -> NDArray[np.float32]:
        """The samples [m] at another rate in Hz, by soxr HQ; the same array, not a copy, at the same rate."""
        if sample_rate == self.sample_rate:
            return self.samples
        samples = soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ")
        return np.asarray(samples, np.float32)


def decode(data: bytes) -> Audio:
    """Decode the first audio stream of a whole file; channels become their mean, cover art is ignored.

    Encoder delay and padding are removed where the file declares them. Raises BadAudio, with one reason,
    for bytes that are empty, not audio, encrypted, cut short, damaged or not finite.
    """
    if not data:
        raise BadAudio("the file is empty")
    if reason := protection(data):
        raise BadAudio(f"the file is encrypted ({reason}); only an unprotected copy can be decoded")
    try:
        # Tags in other encodings than UTF-8 are common, and no reason to refuse the music.
        with av.open(
            io.BytesIO(data),
            mode="r",
            metadata_errors="ignore",
            container_options={"format_whitelist": _FORMATS},
            buffer_size=1 << 18,
        ) as container:
            return _decode_stream(data, container)
    except av.error.FFmpegError as error:
        raise BadAudio(f"unreadable: not audio, or cut short or damaged ({error.strerror})") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, BadAudio):
            raise
        # A file that nobody thought of must not end the work on a whole library.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadAudio(f"unreadable: decoding met something unexpected ({reason})") from error


def check_audible(audio: Audio, min_duration_s: float, silence_dbfs: float) -> None:
    """Raise BadAudio if a track is shorter than `min_duration_s` or never louder than `silence_dbfs`.

    The peak counts, in dB relative to a sample of 1.0.
    """
    if audio.duration_s < min_duration_s:
        raise BadAudio(f"too short: {audio.duration_s:.2f} s; at least {min_duration_s:g} s are needed")
    peak = max(float(audio.samples.max(initial=0.0)), -float(audio.samples.min(initial=0.0)))
    if peak == 0.0:
        raise BadAudio("silent: every sample is zero")
    peak_dbfs = 20.0 * float(np.log10(peak))
    if peak_dbfs < silence_dbfs:
        raise BadAudio(f"silent: the peak is {peak_dbfs:.1f} dBFS; at least {silence_dbfs:g} dBFS are needed")


def _decode_stream(data: bytes, container: InputContainer) -> Audio:
    if not container.streams.audio:
        raise BadAudio("the file holds no audio stream")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise BadAudio("the audio is in a codec that this build of FFmpeg cannot decode")
    stream.codec_context.thread_count = 1  # whole tracks are decoded in parallel instead

    declared_s = _declared_s(container, stream)
    damage = _Damage()
    track = _Growing(int((declared_s or 0.0) * stream.sample_rate))
    sample_rate = 0
    for block in _blocks(container, stream, damage):
        if sample_rate not in (0, block.sample_rate):
            raise BadAudio(f"the sample rate changes midway, from {sample_rate} to {block.sample_rate} Hz")
        sample_rate = block.sample_rate
        _mix(block, track.extend(block.samples))
    if not track.n_samples:
        raise BadAudio("unreadable: no audio could be decoded; the file is cut short or damaged")

    audio = Audio(track.samples, sample_rate)
    if reason := missing_end(data, container.format.name, sample_rate, audio.duration_s, declared_s):
        raise BadAudio(f"truncated: {reason}")
    if damage.packets > _MOST_DAMAGED_PACKETS * damage.of:
        raise BadAudio(f"damaged: {damage.packets} of {damage.of} packets could not be decoded")
    if not np.isfinite(audio.samples).all():
        raise BadAudio("some samples are not finite (NaN or infinity)")
    return audio


def _declared_s(container: InputContainer, stream: AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


@dataclass
class _Damage:
    packets: int = 0
    of: int = 0


class _Growing:
    """Room for samples [n]: allocated once if the declared duration is right, else enlarged in steps."""

    def __init__(self, expected: int) -> None:
        # Memory is only taken once written to, but a false header must not reserve it all.
        self._room = np.empty(min(expected + _BLOCK, _MOST_RESERVED), np.float32)
        self.n_samples = 0

    @property
    def samples(self) -> NDArray[np.float32]:
        return self._room[: self.n_samples]

    def extend(self, n: int) -> NDArray[np.float32]:
        """The next [n] samples, to be written by the caller."""
        start, self.n_samples = self.n_samples, self.n_samples + n
        if self.n_samples > len(self._room):
            self._room = np.concatenate([self._room[:start], np.empty(n + start // 2, np.float32)])
        return self._room[start : self.n_samples]


def _blocks(container: InputContainer, stream: AudioStream, damage: _Damage) -> Iterator[AudioFrame]:
    """Frames of about _BLOCK samples: decoders give some 1,000, on which NumPy spends its time in calls."""
    fifo, kind = AudioFifo(), None
    for packet in container.demux(stream):
        damage.of += 1
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damage.packets += 1
            continue
        for frame in frames:
            # The queue itself does not notice another number of channels, and would read past the end.
            if kind != (kind := (frame.format.name, frame.layout.nb_channels, frame.sample_rate)):
                if block := fifo.read():
                    yield block
                fifo = AudioFifo()
            frame.pts = None  # gaps in the timestamps are no error here
            fifo.write(frame)
        if fifo.samples >= _BLOCK and (block := fifo.read()):
            yield block
    if block := fifo.read():
        yield block


def _mix(block: AudioFrame, out: NDArray[np.float32]) -> None:
    """Write the mean of the channels to out [n]; NumPy's own mean over so short an axis is slow."""
    name = block.format.name
    if name.removesuffix("p") not in _SAMPLE_TYPES:
        raise BadAudio(f"samples of type {name} are not supported")
    dtype, silence, full_scale = _SAMPLE_TYPES[name.removesuffix("p")]
    n, n_channels = block.samples, block.layout.nb_channels
    if block.format.is_planar:
        columns = [np.frombuffer(memoryview(plane), dtype, n) for plane in block.planes]
    else:
        interleaved = np.frombuffer(memoryview(block.planes[0]), dtype, n * n_channels)
        columns = list(interleaved.reshape(n, n_channels).T)
    out[:] = columns[0]
    for column in columns[1:]:
        out += column
    if silence:
        out -= silence * n_channels
    if full_scale * n_channels > 1:
        out *= np.float32(1.0 / (full_scale * n_channels))
