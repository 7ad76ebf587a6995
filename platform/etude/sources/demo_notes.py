"""The notes of a piece of the demo library, exactly as the rendering plays them, with tempo and bars."""

import math
from collections.abc import Sequence

import numpy as np

from etude.emotion.metre import DEFAULT_METRE, beat_quarters, beats_per_bar
from etude.emotion.midi_events import DRUM_CHANNEL
from etude.emotion.performance import Performance
from etude.sources.arrange import Arrangement
from etude.sources.excerpt import Note, read_measured
from etude.sources.midi import TICKS_PER_S, strokes
from etude.sources.scores import Score, corpus_root

NEXT_REPEAT_S = 0.002  # a note this close before a repeat begins belongs to it: times are rounded to ticks


def demo_performance(score: Score, plan: Arrangement) -> Performance:
    """The performance of a piece whose arrangement is `plan`. Raises OSError if the score cannot be read."""
    metre = score.metre or DEFAULT_METRE
    bar = beats_per_bar(metre) * beat_quarters(metre)
    parts, lead = read_measured(corpus_root() / score.path, score.tune, score.bars, bar)
    return performed(parts, plan, lead if score.metre else 0.0)


def performed(parts: Sequence[Sequence[Note]], plan: Arrangement, lead: float = 0.0) -> Performance:
    """The strokes of an arrangement; `lead` is how many quarters after a barline the first note comes.

    Each repeat begins anew at its place in the bar, as the score has it, whatever the last bar's length.
    """
    played = list(strokes(parts, plan))
    starts, ends = (np.array([stroke[i] for stroke in played]) / TICKS_PER_S for i in (1, 2))
    beats_a_s = plan.tempo / 60
    bar = beats_per_bar(plan.metre)
    period = math.ceil(plan.period_s * beats_a_s / bar - 1e-3) * bar  # beats from one repeat to the next
    repeat = np.floor((starts + NEXT_REPEAT_S) / plan.period_s)
    return Performance(
        onset_s=starts,
        length_s=ends - starts,
        onset_beats=lead / beat_quarters(plan.metre)
        + repeat * period
        + (starts - repeat * plan.period_s) * beats_a_s,
        length_beats=(ends - starts) * beats_a_s,
        pitch=np.array([stroke.pitch for stroke in played], dtype=np.int64),
        velocity=np.array([stroke.velocity for stroke in played], dtype=np.int64),
        drum=np.array([stroke.channel == DRUM_CHANNEL for stroke in played], dtype=np.bool_),
        tempo_bpm=float(plan.tempo),
        beats_per_bar=bar,
        measured=bool(plan.metre),
    ).sorted()
