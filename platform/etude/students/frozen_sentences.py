"""A frozen text encoder as a teacher is one, so that every text's vector is computed once and kept."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray

from etude.students.sentence import SentenceEncoder
from etude.teachers.minilm import by_length


class FrozenSentences:
    """A `TextTeacher` over an encoder without adapters; every text is a query.

    `batch_size` texts of about the same length go through the network at once. Its `id` holds all that a
    vector depends on: weights, tokenizer, prefix, longest text, precision.
    """

    normalized = True

    def __init__(self, encoder: SentenceEncoder, batch_size: int = 32) -> None:
        """Raises ValueError if the encoder has adapters: what is kept of its vectors would grow old."""
        if encoder.trained:
            raise ValueError("vectors of an encoder that learns must not be kept: build it without lora")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self.dim, self.license = encoder.dim, encoder.license
        self._encoder = encoder.eval()
        self._batch_size = batch_size
        weight = next(encoder.parameters())
        self._device = weight.device
        reader = encoder.reader
        settings = "\n".join([reader.prefix, str(reader.max_tokens), str(weight.dtype)])
        self.id = f"{encoder.id}-{sha256(settings.encode()).hexdigest()[:8]}"

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Indices of the texts that are longer than the encoder takes."""
        return self._encoder.too_long(texts)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim] of length 1. What is too long is cut, and a warning says how many that were.

        Raises UserError if a text is empty.
        """
        reader = self._encoder.reader
        tokens = reader.ids(texts, queries=True)
        vectors_ND = np.empty((len(texts), self.dim), np.float32)
        for rows in by_length([len(one) for one in tokens], self._batch_size):
            input_ids, mask = reader.padded([tokens[row] for row in rows])
            found_BD = self._encoder(input_ids.to(self._device), mask.to(self._device))
            vectors_ND[rows] = found_BD.cpu().numpy()
        return vectors_ND
