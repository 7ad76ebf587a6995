"""A Standard MIDI file as a performance."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from etude.emotion.metre import DEFAULT_METRE, beat_quarters, beats_per_bar
from etude.emotion.midi_events import MAX_EVENTS, read_events
from etude.emotion.performance import Performance
from etude.errors import BadAudio

__all__ = ["MAX_BEATS", "MAX_DURATION_S", "MAX_EVENTS", "read_midi"]

DEFAULT_TEMPO = 500_000  # microseconds a quarter, for a file that states none
MAX_DURATION_S = 4 * 3600.0
MAX_BEATS = 100_000  # four hours at 400 beats a minute

Floats = NDArray[np.float64]
T = TypeVar("T", int, str)


def read_midi(data: bytes) -> Performance:
    """The notes of a Standard MIDI file of type 0 or 1, with its changes of tempo and metre; no pedal.

    It counts as measured if the file states a metre. Notes that never end are left out. Raises BadAudio if
    the file is broken, has no note, or is too long; see also `read_events`.
    """
    events = read_events(data)
    if not events.notes:
        raise BadAudio("the MIDI file has no note" + (" that ends" if events.n_unended else ""))
    ticks = np.array([note[:2] for note in events.notes], dtype=np.float64)
    end = float(ticks.max())
    changes, tempi = _sections(events.tempi, DEFAULT_TEMPO, end)
    time_s = np.interp(ticks, changes, _elapsed(changes, np.array(tempi) / 1e6 / events.ticks_per_quarter))
    changes, metres = _sections(events.metres, DEFAULT_METRE, end)
    beat_ticks = events.ticks_per_quarter * np.array([beat_quarters(metre) for metre in metres])
    elapsed = _elapsed(changes, 1 / beat_ticks)
    beats = np.interp(ticks, changes, elapsed)
    bar = beats_per_bar(_longest(metres, np.diff(changes)))
    shifts = _whole_bars(np.diff(elapsed), bar) - elapsed[:-1]
    onset_beats = beats[:, 0] + shifts[np.searchsorted(changes, ticks[:, 0], side="right") - 1]
    if time_s.max() > MAX_DURATION_S or onset_beats.max() > MAX_BEATS or beats.max() > MAX_BEATS:
        raise BadAudio(f"the MIDI file is absurdly long: {time_s.max():.3g} seconds, {beats.max():.3g} beats")
    first, last = ticks[:, 0].argmin(), ticks[:, 1].argmax()
    return Performance(
        onset_s=time_s[:, 0],
        length_s=time_s[:, 1] - time_s[:, 0],
        onset_beats=onset_beats,
        length_beats=beats[:, 1] - beats[:, 0],
        pitch=np.array([note.pitch for note in events.notes], dtype=np.int64),
        velocity=np.array([note.velocity for note in events.notes], dtype=np.int64),
        drum=np.array([note.drum for note in events.notes], dtype=np.bool_),
        tempo_bpm=60 * float(beats[last, 1] - beats[first, 0]) / float(time_s[last, 1] - time_s[first, 0]),
        beats_per_bar=bar,
        measured=bool(events.metres),
    ).sorted()


def _sections(changes: Sequence[tuple[int, T]], default: T, end: float) -> tuple[Floats, list[T]]:
    """The ticks at which each of n values begins, with the end behind them, and the values.

    Of two at one time the later one counts; one that says the same again begins nothing.
    """
    ticks: list[float] = [0.0]
    values: list[T] = [default]
    for tick, value in sorted(changes, key=lambda change: change[0]):
        if tick == ticks[-1]:
            values[-1] = value
        elif value != values[-1] and tick < end:
            ticks.append(tick)
            values.append(value)
    return np.array([*ticks, end]), values


def _elapsed(changes: Floats, rates: Floats) -> Floats:
    """What has passed at each change, at so much a tick in each section."""
    return np.concatenate([[0.0], np.cumsum(np.diff(changes) * rates)])


def _whole_bars(lengths: Floats, bar: float) -> Floats:
    """Where each section begins if each begins with a bar; a first one of less than a bar ends with one."""
    whole = np.ceil(lengths / bar - 1e-6) * bar
    starts: Floats = np.concatenate([[0.0], np.cumsum(whole)[:-1]])
    if len(lengths) > 1 and lengths[0] < bar:
        starts[0] = whole[0] - lengths[0]
    return starts


def _longest(metres: Sequence[str], lengths: Floats) -> str:
    """The metre that lasts longest in all."""
    lasting = dict.fromkeys(metres, 0.0)
    for metre, length in zip(metres, lengths, strict=True):
        lasting[metre] += float(length)
    return max(lasting, key=lasting.__getitem__)
