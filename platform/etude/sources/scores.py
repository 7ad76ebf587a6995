"""The scores of the demo library: which there are, and which come first.

`scores.csv` beside this file lists pieces of the music21 corpus that are known to work, so that nothing
has to be parsed to list the library; `etude.sources.survey` makes it.
"""

import csv
import hashlib
from dataclasses import dataclass, fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from etude.errors import UserError

TABLE = Path(__file__).with_name("scores.csv")
CORPUS_LICENSE = "not stated in the score; see license.txt of the music21 corpus"


@dataclass(frozen=True)
class Collection:
    """A part of the corpus: where it lies, how often it is chosen, and what its own files say of rights."""

    globs: tuple[str, ...]
    weight: int  # pieces in every hundred, as long as the collection lasts
    limit: int = 1000  # pieces in the table
    composer: str = "Traditional"
    license: str = CORPUS_LICENSE
    exclude: str = "^$"  # a pattern for file names


COLLECTIONS = {
    "Bach chorales": Collection(("bach/bwv*.*",), 20, 360, "Johann Sebastian Bach"),
    "Ryan's Mammoth": Collection(("ryansMammoth/*.abc",), 12, 140),
    "O'Neill's": Collection(("oneills1850/*.abc",), 7, 80),
    "Aird's Airs": Collection(("airdsAirs/*.abc",), 5, 60),
    "Essen folk songs": Collection(
        ("essenFolksong/*.abc",),
        13,
        150,
        license="non-commercial use and distribution, as the corpus's essenFolksong/license.txt says",
        exclude="^test",
    ),
    "Palestrina masses": Collection(
        ("palestrina/*.krn",),
        11,
        140,
        "Giovanni Pierluigi da Palestrina",
        license="Copyright 2000 John Miller, rights reserved, as the header of the score says",
    ),
    "Trecento": Collection(
        ("trecento/*.xml", "trecento/*.mxl"), 8, 100, "Various, 14th century", exclude="_bak"
    ),
    "Monteverdi madrigals": Collection(("monteverdi/*.mxl",), 6, 60, "Claudio Monteverdi", exclude="_old"),
    "Quartets": Collection(
        (
            "haydn/*/*.mxl",
            "mozart/k1*/*.mxl",
            "mozart/k80/*.mxl",
            "mozart/k458/*.mxl",
            "beethoven/**/*.mxl",
            "schumann_robert/opus41no1/*.mxl",
        ),
        11,
    ),
    "Piano, rags and songs": Collection(
        (
            "joplin/*.mxl",
            "chopin/*.krn",
            "mozart/k545/*.mxl",
            "cpebach/*.mxl",
            "schumann_clara/**/*.*",
            "schumann_robert/opus48no2.mxl",
            "schubert/*.xml",
            "handel/*/*.mxl",
            "corelli/*/*.xml",
            "beach/*.musicxml",
            "verdi/*.mxl",
            "weber/*.mxl",
            "schoenberg/*/*.mxl",
            "webern/*.mxl",
            "lusitano/*.mxl",
            "johnson_j_r/*.mxl",
            "liliuokalani/*.mxl",
            "leadSheet/foster*.mxl",
            "leadSheet/berlin*.mxl",
        ),
        7,
    ),
}


@dataclass(frozen=True)
class Score:
    """One row of the table: a piece, or the beginning of a long one."""

    collection: str
    path: str  # inside the music21 corpus
    tune: int  # n-th tune of a file that holds many; 0: the file is one score
    bars: int  # bars that are read; 0: all
    quarters: float  # how long they last, counted from the first note
    parts: int
    metre: str  # such as 3/4; empty where the score has none
    key: str  # such as F# minor, estimated from the notes that are read
    title: str
    composer: str
    work: str  # pieces of one work share it

    @property
    def uri(self) -> str:
        """The piece's place in the corpus: music21:palestrina/Agnus_02.krn, or music21:book1.abc#7."""
        return f"music21:{self.path}" + (f"#{self.tune}" if self.tune else "")


def corpus_root() -> Path:
    """The folder of music21's corpus. Raises UserError if it is not installed."""
    spec = find_spec("music21")
    folders = spec.submodule_search_locations if spec else None
    root = Path(folders[0]) / "corpus" if folders else None
    if root is None or not (root / "bach").is_dir():
        raise UserError("the demo library needs the scores that music21 ships: run `pip install music21`")
    return root


@cache
def library() -> tuple[Score, ...]:
    """Every piece of the table, in the table's order."""
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Score)}
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(Score(**{k: kinds[k](v) for k, v in row.items()}) for row in csv.DictReader(file))


def choose(pieces: int, seed: int) -> list[Score]:
    """The first `pieces` of one endless mixture of the collections; a smaller number gives a prefix.

    Each collection is shuffled by `seed` and takes its turn in proportion to its weight until it runs out.
    Raises UserError if there are not as many.
    """
    if pieces > len(library()):
        raise UserError(f"the demo library has {len(library())} pieces: set source.pieces to that or less")
    queues: dict[str, list[Score]] = {}
    for score in library():
        queues.setdefault(score.collection, []).append(score)
    for queue in queues.values():
        queue.sort(key=lambda score: hashlib.sha256(f"{seed}/{score.uri}".encode()).digest())
    credit = dict.fromkeys(queues, 0)
    chosen: list[Score] = []
    while len(chosen) < pieces:
        waiting = [name for name, queue in queues.items() if queue]
        for name in waiting:
            credit[name] += COLLECTIONS[name].weight
        turn = max(waiting, key=credit.__getitem__)
        credit[turn] -= sum(COLLECTIONS[name].weight for name in waiting)
        chosen.append(queues[turn].pop())
    return chosen
