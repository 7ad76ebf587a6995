"""The tables (CSV) that published sets describe their pieces with."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from etude.errors import UserError
from etude.sources.described import PassedOver
from etude.sources.folder import printable
from etude.sources.pieces.files import found_below

UNREADABLE = "lines without a number where a label stands"
OUTSIDE_SCALE = "labels outside of their scale"


def the_table(root: Path, pattern: str, how_to_get: str) -> Path:
    """The first file of this name below a folder. Raises UserError, with the way to get it, without one."""
    found = found_below(root, pattern)
    if not found:
        raise UserError(f"there is no {pattern} below {printable(root)}: {how_to_get}")
    return found[0]


def rows_of(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a CSV file, each with its place in words; spaces around names and values are removed.

    Raises UserError if the file cannot be read or lacks one of these columns.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            names = {name: name.strip() for name in reader.fieldnames or ()}
            if lacking := [column for column in columns if column not in names.values()]:
                raise UserError(f"{printable(path)} has no column {lacking[0]}: put the published file there")
            for row in reader:
                values = {names[key]: (row[key] or "").strip() for key in names}
                yield f"{path.name}, line {reader.line_num}", values
    except OSError as error:
        raise UserError(f"cannot read {printable(path)}: {error.strerror}") from None
    except csv.Error as error:
        raise UserError(f"{printable(path)} is no table ({error}): put the published file there") from None


def ratings(
    row: Mapping[str, str],
    columns: tuple[str, str],
    scale: tuple[float, float],
    where: str,
    passed_over: PassedOver,
) -> tuple[float, float] | None:
    """Valence in -1..1 and arousal in 0..1, from two columns on a scale; None, counted, if one lacks."""
    low, high = scale
    found = [_number(row[column]) for column in columns]
    shares = [(number - low) / (high - low) for number in found if number is not None]
    if len(shares) < 2:
        passed_over.add(UNREADABLE, where)
        return None
    if not all(0 <= share <= 1 for share in shares):
        passed_over.add(f"{OUTSIDE_SCALE} of {low:g} to {high:g}", where)
        return None
    return 2 * shares[0] - 1, shares[1]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
