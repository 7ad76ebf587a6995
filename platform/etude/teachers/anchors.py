"""Directions with a meaning in CLAP's space: the vectors of terms such as "rock" and "piano"."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.teachers.clap_text import ClapText
from etude.teachers.terms import read_terms


@dataclass(frozen=True)
class AnchorSource:
    """Terms in categories, and the text encoder of the CLAP in whose space they are to lie."""

    terms: Path | None  # JSON {category: [term, ...]}; None for those that come with Étude
    model: Path  # ONNX
    tokenizer: Path

    def vectors(self) -> NDArray[np.float32]:
        """Vectors [n_terms, 512] of length 1: every term once, in the file's order.

        Raises UserError if a file does not serve.
        """
        terms = dict.fromkeys(term for category in read_terms(self.terms).values() for term in category)
        return ClapText(self.model, self.tokenizer).embed(list(terms))
