"""From a score file of the music21 corpus to the notes of its first bars, part by part.

Only the bars that will sound are parsed: a quartet movement then takes as long as a chorale. Nothing is
written: music21's own `corpus.parse` would leave pickles in the system's temporary folder.
"""

import re
import warnings
import zipfile
from collections import Counter
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

if TYPE_CHECKING:  # importing music21 takes half a second, which listing the tracks need not pay
    from music21.stream import Score

MUSICXML = frozenset({".mxl", ".xml", ".musicxml"})
_VOTING = 12  # barlines
_parsing = Lock()  # music21 makes no promise about threads, and it never lets go of the interpreter anyway


class Note(NamedTuple):
    """One sounding note; ties are already joined."""

    onset: float  # quarters since the excerpt's first note
    length: float  # quarters
    pitch: int  # MIDI number, 60 = middle C


def read_parts(file: Path, tune: int = 0, bars: int = 0) -> list[list[Note]]:
    """The notes of each part, in the order of their onsets; parts that stay silent are left out.

    `tune` is the n-th tune of an ABC file that holds many (0: the file is one score), `bars` how many bars
    to read (0: all). Raises OSError if the file cannot be read.
    """
    with _parsing:
        return notes_of(parse(file, tune, bars))


def read_measured(file: Path, tune: int, bars: int, bar: float) -> tuple[list[list[Note]], float]:
    """The parts as `read_parts` gives them, and the quarters from a barline to the first note: 3 of a bar of
    4 for a pickup of one quarter.

    `bar` is the bar's length in quarters. Barlines need not all agree (folk songs repeat from within a bar,
    some scores change their metre): most of the first dozen, which sound, decide.
    """
    with _parsing:
        score = parse(file, tune, bars)
        start = first_onset(score)
        measures = list(score.parts[0].getElementsByClass("Measure"))
        # The first barline stands before a pickup as well, where no bar begins.
        lines = [float(measure.offset) for measure in measures[1 : 1 + _VOTING]] or [0.0]
        votes = Counter(round(float(start - line) % bar, 3) % bar for line in lines)
        return notes_of(score), votes.most_common(1)[0][0]


@lru_cache(maxsize=1)  # whoever wants a piece's sound asks for its notes next
def parse(file: Path, tune: int = 0, bars: int = 0) -> "Score":
    """The first bars of a score as a music21 stream; see `read_parts`."""
    from music21 import converter, stream

    suffix = file.suffix
    if suffix in MUSICXML:
        text, kind = _first_measures(_musicxml(file), bars), "musicxml"
    elif suffix == ".krn":
        text, kind = _first_kern_bars(file.read_text(errors="replace"), bars), "humdrum"
    else:
        text, kind = _nth_tune(file.read_text(errors="replace"), tune), "abc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overfull measures and the like, which the survey saw and accepted
        parsed = converter.parseData(text, format=kind)
    if isinstance(parsed, stream.Score):
        return parsed
    raise ValueError(f"{file.name} holds several tunes: name one by its number")


def notes_of(score: "Score") -> list[list[Note]]:
    """The sounding notes of every part, shifted so that the first note of all starts at 0."""
    parts = [part for part in map(_part_notes, score.parts) if part]
    start = min((part[0].onset for part in parts), default=0.0)
    return [[note._replace(onset=note.onset - start) for note in part] for part in parts]


def first_onset(score: "Score") -> float:
    """Quarters of silence before the first note of any part."""
    return min((part[0].onset for part in map(_part_notes, score.parts) if part), default=0.0)


def _part_notes(part: Any) -> list[Note]:
    notes: list[Note] = []
    sounding: dict[int, int] = {}  # pitch -> index of its latest note
    for element in part.flatten().notes:
        length = float(element.duration.quarterLength)
        if length == 0:  # grace notes and chord symbols
            continue
        onset = float(Fraction(element.offset))
        tied = element.tie is not None and element.tie.type in ("stop", "continue")
        for pitch in getattr(element, "pitches", ()):  # unpitched percussion has none
            last = sounding.get(pitch.midi)
            if tied and last is not None and abs(notes[last].onset + notes[last].length - onset) < 1e-6:
                notes[last] = notes[last]._replace(length=notes[last].length + length)
            else:
                sounding[pitch.midi] = len(notes)
                notes.append(Note(onset, length, pitch.midi))
    return sorted(notes)


def _musicxml(file: Path) -> bytes:
    if file.suffix != ".mxl":
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if not name.startswith("META-INF")]
        return archive.read(next(name for name in names if name.endswith((".xml", ".musicxml"))))


def _first_measures(xml: bytes, bars: int) -> str:
    root = ElementTree.fromstring(xml)
    for part in root.iter("part") if bars else ():
        for measure in part.findall("measure")[bars:]:
            part.remove(measure)
    return ElementTree.tostring(root, encoding="unicode")


def _first_kern_bars(text: str, bars: int) -> str:
    if not bars:
        return text
    kept: list[str] = []
    barlines = 0
    for line in text.splitlines():
        barlines += line.startswith("=")
        if barlines > bars:
            break
        kept.append(line)
    spines = next(line for line in reversed(kept) if line and not line.startswith("!")).count("\t") + 1
    return "\n".join([*kept, "\t".join(["*-"] * spines), ""])


def _nth_tune(text: str, tune: int) -> str:
    if not tune:
        return text
    return re.split(r"^(?=X:)", text, flags=re.MULTILINE)[tune]
