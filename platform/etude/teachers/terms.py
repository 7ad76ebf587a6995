"""Words that describe music, in categories: queries are made of them, and their vectors are anchors."""

import json
from collections.abc import Sequence
from pathlib import Path

from etude.errors import UserError

DEFAULT_TERMS = Path(__file__).with_name("terms.json")


def read_terms(path: Path | None, categories: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """The terms of each category, of those named or of all; without a path, those that come with Étude.

    Raises UserError, naming the file, if it is no JSON of categories with terms or lacks a category.
    """
    file = DEFAULT_TERMS if path is None else path.expanduser()
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the query terms {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(data, dict) or not data:
        raise UserError(f'{file} holds no categories: write {{"Mood": ["calm", "happy"], ...}}')
    terms = {category: _terms_of(file, category, values) for category, values in data.items()}
    missing = [category for category in categories if category not in terms]
    if missing:
        raise UserError(
            f"{file} has no category {missing[0]!r}: queries.categories may name {', '.join(terms)}"
        )
    return {category: terms[category] for category in dict.fromkeys(categories or terms)}


def _terms_of(file: Path, category: str, values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        raise UserError(f"{file}: the category {category!r} has no terms; give a list of words, or remove it")
    for value in values:
        # What is not printable may be half a character, which neither a tokenizer nor a hash takes.
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise UserError(
                f"{file}: the category {category!r} holds {value!r}, which is not a term in words"
            )
    return tuple(dict.fromkeys(" ".join(value.split()) for value in values))
