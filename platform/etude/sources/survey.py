"""Makes `scores.csv`: run `python -m etude.sources.survey` after music21's corpus has changed.

Every piece is read whole once for its metre and length, then the way the demo library reads it; what
fails, has no notes or is over after a few beats is left out and logged. Takes some minutes.
"""

import csv
import hashlib
import logging
import re
import string
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

from etude.emotion.metre import beat_quarters
from etude.sources.excerpt import MUSICXML, first_onset, notes_of, parse
from etude.sources.scores import COLLECTIONS, TABLE, Collection, Score, corpus_root

EXCERPT_BEATS = 80  # what sounds in 30 s at 160 beats a minute
SHORTEST_BEATS = 8
log = logging.getLogger(__name__)

COMPOSERS = {  # by the beginning of the path in the corpus
    "beach": "Amy Beach",
    "beethoven": "Ludwig van Beethoven",
    "chopin": "Frederic Chopin",
    "corelli": "Arcangelo Corelli",
    "cpebach": "Carl Philipp Emanuel Bach",
    "handel": "George Frideric Handel",
    "haydn": "Joseph Haydn",
    "johnson_j_r": "John Rosamond Johnson",
    "joplin": "Scott Joplin",
    "leadSheet/berlin": "Irving Berlin",
    "leadSheet/foster": "Stephen Foster",
    "liliuokalani": "Queen Liliuokalani",
    "lusitano": "Vicente Lusitano",
    "mozart": "Wolfgang Amadeus Mozart",
    "schoenberg": "Arnold Schoenberg",
    "schubert": "Franz Schubert",
    "schumann_clara": "Clara Schumann",
    "schumann_robert": "Robert Schumann",
    "trecento/PMFC_06-Jacopo": "Jacopo da Bologna",
    "trecento/PMFC_06_Giovanni": "Giovanni da Firenze",
    "trecento/PMFC_24": "Johannes Ciconia",
    "verdi": "Giuseppe Verdi",
    "weber/": "Carl Maria von Weber",
    "webern": "Anton Webern",
}


def survey(root: Path) -> Iterator[Score]:
    """One row for every piece that can be read, collection by collection."""
    for name, collection in COLLECTIONS.items():
        found = 0
        for file, tune in _pieces(root, collection):
            try:
                score = _row(root, name, file, tune)
            except Exception as error:  # music21 raises what it likes; the log says so
                log.warning("left out %s %d: %s: %s", file.name, tune, type(error).__name__, error)
                continue
            yield score
            found += 1
            if found == collection.limit:
                break
        log.info("%s: %d pieces", name, found)


def _pieces(root: Path, collection: Collection) -> list[tuple[Path, int]]:
    """Files, or the tunes in them, in an order that mixes them, without one that merely copies another."""
    files = [f for pattern in collection.globs for f in root.glob(pattern) if f.suffix in READABLE]
    files = [f for f in files if not re.search(collection.exclude, f.stem)]
    unique = {f.with_suffix(""): f for f in sorted(files)}
    pieces = [(f, tune) for f in unique.values() for tune in _tunes(f)]
    return sorted(pieces, key=lambda p: hashlib.sha256(f"{p[0].relative_to(root)}{p[1]}".encode()).digest())


READABLE = MUSICXML | {".krn", ".abc"}


def _tunes(file: Path) -> list[int]:
    if file.suffix != ".abc":
        return [0]
    count = len(re.findall(r"^X:", file.read_text(errors="replace"), flags=re.MULTILINE))
    return [0] if count == 1 else list(range(1, count + 1))


def _row(root: Path, collection: str, file: Path, tune: int) -> Score:
    from music21 import meter

    whole = parse(file, tune)
    signature = next(iter(whole.recurse().getElementsByClass(meter.TimeSignature)), None)
    metre = signature.ratioString if signature else ""
    needed = EXCERPT_BEATS * beat_quarters(metre) + first_onset(whole)
    bars = 0
    if file.suffix != ".abc" and float(whole.highestTime) > needed:
        bars = sum(measure.offset < needed for measure in whole.parts[0].getElementsByClass("Measure"))
    excerpt = parse(file, tune, bars)
    parts = notes_of(excerpt)
    quarters = float(excerpt.highestTime) - first_onset(excerpt)
    if not parts or quarters < SHORTEST_BEATS * beat_quarters(metre):
        raise ValueError(f"{len(parts)} parts of {quarters} quarters are too little to hear")
    if any(note.onset + note.length > quarters + 1e-6 for part in parts for note in part):
        raise ValueError("a note lasts longer than the piece")
    key = excerpt.analyze("key")
    path = file.relative_to(root).as_posix()
    title, work = _names(collection, path, file.read_text(errors="replace"), tune)
    return Score(
        collection=collection,
        path=path,
        tune=tune,
        bars=bars,
        quarters=round(quarters, 6),
        parts=len(parts),
        metre=metre,
        key=f"{key.tonic.name.replace('-', 'b')} {key.mode}",
        title=title,
        composer=next(
            (composer for start, composer in COMPOSERS.items() if path.startswith(start)),
            COLLECTIONS[collection].composer,
        ),
        work=work,
    )


def _names(collection: str, path: str, text: str, tune: int) -> tuple[str, str]:
    """Title and work, from the place where each collection keeps them."""
    inner, stem = path.partition("/")[2], Path(path).stem
    if path.endswith(".abc"):
        header = re.split(r"^(?=X:)", text, flags=re.MULTILINE)[tune or 1]
        title = re.findall(r"^T:\s*(.*)", header, flags=re.MULTILINE)[0].strip().rstrip(".")
        title = string.capwords(title) if title.isupper() else title
        return title, title.split(" -- ")[0]
    if collection == "Palestrina masses":
        records = dict(re.findall(r"^!!!(\w+):\s*(.*?)\s*$", text, re.MULTILINE))
        section, name, mass = stem.split("_")[0], records["OTL"], records["OPR"]
        return f"{mass}: {name if name.startswith(section) else f'{section}, {name}'}", mass
    if collection == "Bach chorales":
        number = stem.removeprefix("bwv")
        return f"Chorale, BWV {number}", f"BWV {number.split('.')[0]}"
    if collection == "Trecento":
        title = re.sub(r"^(PMFC|Fava)_(\d+[a-z]?[_-])*", "", stem).replace("_", " ").strip()
        return title, re.sub(r"[_-]+", " ", stem)
    if collection == "Monteverdi madrigals":
        number = stem.removeprefix("madrigal.")
        return f"Madrigal {number}", f"Madrigal {number.rstrip('abc')}"
    work = _spaced(inner.split("/")[0].removesuffix(Path(path).suffix))
    work = re.sub(r"^K (?=\d)", "K. ", work[:1].upper() + work[1:])
    return (f"{work}, {_spaced(stem)}" if "/" in inner else work), work


def _spaced(name: str) -> str:
    """Words for a file name: opus18no1 becomes opus 18 no 1, and laDonna la Donna."""
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[0-9])(?=[a-zA-Z])|[_-]", " ", name)


def main() -> None:
    """Write the table, and say on standard error what was left out."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    rows = [asdict(score) for score in survey(corpus_root())]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Score)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
