"""A set with MusicBench's layout: tones and noises rendered here, and captions that say what can be heard.

It stands in for the real set, which cannot be had here, and keeps its rules: the clips of MusicCaps by their
YouTube ids, altered copies of them under names with suffixes, one JSON object a line, the same recordings in
both tests, and the flag of AudioSet's evaluation set. The sound is real: each attribute that a caption names,
register, timbre, tempo and loudness, is in the samples.
"""

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz
HARMONICS = 12
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
REGISTERS = {"low": (65, 130), "middle": (300, 520), "high": (1200, 2000)}  # Hz
TEMPI = {"held": (0, 0), "slow": (50, 70), "moderate": (110, 130), "fast": (220, 260)}  # pulses a minute
WORDS = {
    "low": ("low", "deep", "bass"),
    "middle": ("mid-range", "medium", "middle"),
    "high": ("high", "bright", "treble"),
    "sine": ("pure tone", "flute-like tone", "soft sine"),
    "saw": ("buzzing saw", "string-like synth", "rich synth"),
    "square": ("hollow square wave", "clarinet-like synth", "chiptune tone"),
    "noise": ("hiss", "wash of noise", "windy noise"),
    "held": ("is held without a pulse", "drones on", "is sustained"),
    "slow": ("pulses slowly", "beats at a slow tempo", "repeats unhurriedly"),
    "moderate": ("pulses at a moderate tempo", "beats at a walking pace", "repeats steadily"),
    "fast": ("pulses fast", "beats at a rapid tempo", "repeats hurriedly"),
    "even": ("at an even volume", "with constant loudness", "without getting louder or softer"),
    "growing": ("getting louder", "in a crescendo", "from quiet to loud"),
    "fading": ("fading away", "in a decrescendo", "from loud to quiet"),
}
SENTENCES = (
    "A {register} {timbre} {tempo}, {loudness}.",
    "This clip features a {timbre} in a {register} register that {tempo} {loudness}.",
    "{Loudness}, a {register} {timbre} {tempo}.",
    "The recording is of a {timbre}, {register} in pitch, which {tempo} {loudness}. Nothing else is in it.",
)


@dataclass(frozen=True)
class Sound:
    """What can be heard in a clip."""

    register: str
    timbre: str
    tempo: str
    loudness: str
    hz: float
    per_minute: float

    def caption(self, random: Random) -> str:
        """One way to say it."""
        said = {name: random.choice(WORDS[getattr(self, name)]) for name in ("register", "timbre", "tempo")}
        loudness = random.choice(WORDS[self.loudness])
        capital = loudness[0].upper() + loudness[1:]
        return random.choice(SENTENCES).format(**said, loudness=loudness, Loudness=capital)

    def prompts(self) -> dict[str, str]:
        """The control sentences, as MusicBench has them."""
        note = NOTES[round(69 + 12 * math.log2(self.hz / 440)) % 12]
        pitched, pulsed = self.timbre != "noise", self.per_minute > 0
        grows = {"even": "", "growing": "This song goes from quiet to loud.",
                 "fading": "This song goes from loud to quiet."}  # fmt: skip
        return {
            "prompt_aug": grows[self.loudness],
            "prompt_ch": f"The chord sequence is {note}." if pitched else "",
            "prompt_bt": "The beat counts to 1." if pulsed else "",
            "prompt_bpm": f"The bpm is {self.per_minute:.0f}." if pulsed else "",
            "prompt_key": f"The key is {note}." if pitched else "",
        }


@dataclass(frozen=True)
class Written:
    """What was written; the real source of every file, by its location."""

    path: Path
    source: dict[str, str] = field(default_factory=dict)
    sound: dict[str, Sound] = field(default_factory=dict)
    captions: dict[str, tuple[str, str]] = field(default_factory=dict)  # main and alt
    held_out: set[str] = field(default_factory=set)  # sources
    missing: set[str] = field(default_factory=set)  # locations without audio


def write_musicbench(
    path: Path,
    n_clips: int,
    *,
    seconds: float = 4.0,
    n_test: int = 4,
    copies: int = 2,
    eval_share: float = 0.1,
    n_missing: int = 0,
    seed: int = 0,
    suffix: str = ".wav",
) -> Written:
    """Write `n_clips` sources, `n_test` of them for testing, each with up to `copies` altered copies.

    Copies of test clips are in the training file too; a share of the sources is marked as AudioSet's
    evaluation set; the first `n_missing` files of the training file are named and not there.
    """
    random = Random(seed)
    written = Written(path)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test_A": [], "test_B": []}
    for number in range(n_clips):
        source = "".join(random.choices(ALPHABET, k=11))
        in_test, in_eval = number < n_test, random.random() < eval_share
        if in_test or in_eval:
            written.held_out.add(source)
        original = draw(random)
        for copy, sound in enumerate(altered(original, copies, random)):
            location = f"data_aug2/{source}_{copy}{suffix}" if copy else f"data/{source}{suffix}"
            row = {"location": location} | entry(sound, random) | {"is_audioset_eval_mcaps": in_eval}
            if in_test and not copy:
                rows["test_A"].append(row)
                controlled = [row["main_caption"], *filter(None, sound.prompts().values())]
                rows["test_B"].append(row | {"main_caption": " ".join(controlled)})
            else:
                rows["train"].append(row)
            written.source[location], written.sound[location] = source, sound
            written.captions[location] = row["main_caption"], row["alt_caption"]
    written.missing.update(row["location"] for row in rows["train"][:n_missing])
    for folder in ("data", "data_aug2"):
        (path / "datashare" / folder).mkdir(parents=True, exist_ok=True)
    for location, sound in written.sound.items():
        if location not in written.missing:
            file = io.BytesIO()  # straight into a file, soundfile waits for the disk each time
            soundfile.write(file, render(sound, seconds), SAMPLE_RATE, format=suffix[1:].upper())
            (path / "datashare" / location).write_bytes(file.getvalue())
    for name, some in rows.items():
        lines = "".join(json.dumps(row) + "\n" for row in some)
        (path / f"MusicBench_{name}.json").write_text(lines)
    return written


def entry(sound: Sound, random: Random) -> dict[str, Any]:
    """The fields of one entry that say how it sounds."""
    main, alt = sound.caption(random), sound.caption(random)
    return {"main_caption": main, "alt_caption": alt, **sound.prompts(), "bpm": sound.per_minute}


def draw(random: Random) -> Sound:
    """A sound of which each attribute is as likely as any other."""
    register, tempo = random.choice(list(REGISTERS)), random.choice(list(TEMPI))
    return Sound(
        register, random.choice(("sine", "saw", "square", "noise")), tempo,
        random.choice(("even", "growing", "fading")),
        random.uniform(*REGISTERS[register]), random.uniform(*TEMPI[tempo]),
    )  # fmt: skip


def altered(sound: Sound, copies: int, random: Random) -> Iterator[Sound]:
    """The sound, then copies of it a semitone higher or lower, or of another loudness."""
    yield sound
    for copy in range(random.randint(0, copies)):
        if copy % 2:
            others = {"even", "growing", "fading"} - {sound.loudness}
            yield replace(sound, loudness=random.choice(sorted(others)))
        else:
            yield replace(sound, hz=sound.hz * 2 ** (random.choice((-1, 1)) / 12))


def render(sound: Sound, seconds: float) -> NDArray[np.float32]:
    """The sound as mono samples at `SAMPLE_RATE`, its peak at 0.5."""
    time = np.arange(round(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    wave = _noise(sound.hz, len(time)) if sound.timbre == "noise" else _tone(sound, time)
    if sound.per_minute:
        since = time % (60 / sound.per_minute)
        wave *= np.minimum(since / 0.005, 1) * np.exp(-8 * since * sound.per_minute / 120)
    gain_db = {"even": (0, 0), "growing": (-30, 0), "fading": (0, -30)}[sound.loudness]
    wave *= 10 ** (np.linspace(*gain_db, len(time)) / 20)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def _tone(sound: Sound, time: NDArray[np.float64]) -> NDArray[np.float64]:
    step = 2 if sound.timbre == "square" else 1
    most = 1 if sound.timbre == "sine" else HARMONICS
    wave = np.zeros_like(time)
    for k in range(1, most * step + 1, step):
        if k * sound.hz < SAMPLE_RATE / 2:
            wave += np.sin(2 * np.pi * k * sound.hz * time) / k
    return wave


def _noise(hz: float, n_samples: int) -> NDArray[np.float64]:
    """Noise between a fifth below and a fifth above."""
    spectrum = np.fft.rfft(np.random.default_rng(round(hz * 1000)).standard_normal(n_samples))
    frequency = np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)
    spectrum[(frequency < hz / 1.5) | (frequency > hz * 1.5)] = 0
    wave: NDArray[np.float64] = np.fft.irfft(spectrum, n_samples)
    return wave
