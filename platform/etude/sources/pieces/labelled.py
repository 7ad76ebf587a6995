"""A folder of music of one's own, with JSON labels or without.

A label is an object such as

    {"audio_path": "a.wav", "midi_path": "a.mid", "node_id": 42,
     "valence": 0.7, "arousal": 0.5, "dominance": 0.6, "intensity": 0.8}

and every `*.json` below the folder holds one, or a list of them. Paths count from the JSON file, else from
the folder. `node_id` is an id or a path of the thesaurus, and enough alone; without dominance and intensity
they follow from valence and arousal. Audio and MIDI files with one name, but for their endings, in one folder
belong together, whether a label names one, both or neither of them.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etude.emotion.thesaurus import Node, thesaurus
from etude.emotion.vad import VAD, checked
from etude.errors import UserError
from etude.sources.described import PassedOver
from etude.sources.folder import AUDIO, LocalFolder, files_below, printable
from etude.sources.pieces.base import ANNOTATOR, Label, Piece, completed
from etude.sources.pieces.files import MIDI, FolderPieces

NO_FILE = "labels that name no file"
NO_LABEL = "labels without a node_id, or valence and arousal"
NO_NODE = "labels whose node_id the thesaurus does not have"
OUT_OF_RANGE = "labels outside of their range, -1 to 1 for valence and 0 to 1 for the others"
AGAIN = "labels about a file that has one already"
FURTHER = "files beside another of the same kind and name"


class LabelledConfig(LocalFolder):
    """Settings of a folder of audio and MIDI files, with labels or without."""

    name: Literal["labelled"] = "labelled"


@dataclass
class _Files:
    """The files of one piece."""

    audio: Path | None = None
    midi: Path | None = None


class LabelledPieces(FolderPieces):
    """The pieces that labels name, then all others; an album is one work where tags tell it."""

    def listed(self, passed_over: PassedOver) -> Iterator[Piece]:
        """Every piece that can be used; one with a wrong label is left out, not taken for one without.

        Raises UserError for a JSON file that holds no label.
        """
        together = self._together(passed_over)
        done: set[Path] = set()
        for path in files_below(self.root, {".json"}):
            for where, entry in _entries(path, passed_over):
                files = self._named(path.parent, entry, where, together, passed_over)
                label = _label(entry, where, passed_over)
                stems = {_stem(file) for file in (files.audio, files.midi) if file is not None}
                if stems & done:
                    passed_over.add(AGAIN, where)
                elif stems and label is not None:
                    yield self.piece(files.audio, files.midi, label)
                done |= stems
        for stem, files in together.items():
            if stem not in done:
                yield self.piece(files.audio, files.midi, None)

    def _together(self, passed_over: PassedOver) -> dict[Path, _Files]:
        """The files of each name, by their path without the ending."""
        found: dict[Path, _Files] = {}
        for path in files_below(self.root, AUDIO | MIDI):
            if (file := self.file(path, passed_over)) is None:
                continue
            files = found.setdefault(_stem(file), _Files())
            if file.suffix.lower() in MIDI and files.midi is None:
                files.midi = file
            elif file.suffix.lower() in AUDIO and files.audio is None:
                files.audio = file
            else:
                passed_over.add(FURTHER, printable(file))
        return found

    def _named(
        self,
        folder: Path,
        entry: Mapping[str, Any],
        where: str,
        together: Mapping[Path, _Files],
        passed_over: PassedOver,
    ) -> _Files:
        """What a label names, as far as it is there, and what goes with it; nothing if nothing is there."""
        names = {key: entry.get(key) for key in ("audio_path", "midi_path")}
        paths: dict[str, Path | None] = {}
        for key, name in names.items():
            if isinstance(name, str) and name:
                near = folder / name
                paths[key] = self.file(near if _is_file(near) else self.root / name, passed_over)
        if not paths:
            passed_over.add(NO_FILE, where)
        audio, midi = paths.get("audio_path"), paths.get("midi_path")
        first = audio or midi
        beside = together.get(_stem(first), _Files()) if first else _Files()
        return _Files(audio or beside.audio, midi or beside.midi)


def _entries(path: Path, passed_over: PassedOver) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The labels in a JSON file. Raises UserError if it holds none, or cannot be read."""
    name = printable(path)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is no JSON ({error}): mend it or move it away") from None
    entries = content if isinstance(content, list) else [content]
    if entries and not any(isinstance(e, dict) and {"audio_path", "midi_path"} & e.keys() for e in entries):
        raise UserError(f"{name} holds no label with an audio_path or a midi_path: mend it or move it away")
    for number, entry in enumerate(entries, start=1):
        where = f"{name}, entry {number}" if isinstance(content, list) else name
        if isinstance(entry, dict):
            yield where, entry
        else:
            passed_over.add("entries that are no JSON object", where)


def _label(entry: Mapping[str, Any], where: str, passed_over: PassedOver) -> Label | None:
    """The label of an entry; None, counted, if it says none that can be used."""
    node = None
    if entry.get("node_id") is not None and (node := _node(entry["node_id"])) is None:
        passed_over.add(NO_NODE, f"{where}: {entry['node_id']}")
        return None
    said = {name: entry.get(name) for name in VAD._fields if entry.get(name) is not None}
    if not ({"valence", "arousal"} <= said.keys() or (node is not None and not said)):
        passed_over.add(NO_LABEL, where)
        return None
    try:
        if node is not None and not said:
            return Label(node.vad, ANNOTATOR, node.id)
        numbers = {name: _number(value) for name, value in said.items()}
        label = completed(numbers["valence"], numbers["arousal"], ANNOTATOR)
        vad = checked(label.vad._replace(**numbers), where)
    except ValueError:  # UserError is one
        passed_over.add(OUT_OF_RANGE, where)
        return None
    return Label(vad, ANNOTATOR, None if node is None else node.id)


def _node(said: object) -> Node | None:
    if isinstance(said, bool) or not isinstance(said, int | str):
        return None
    try:
        return thesaurus().find(str(said))
    except UserError:
        return None


def _number(said: object) -> float:
    """The number that JSON holds; nan, which is outside of any range, for anything else."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        return math.nan
    return float(said) if abs(said) < 10 else math.inf  # an int may be too long for a float


def _stem(path: Path) -> Path:
    return path.with_suffix("")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
