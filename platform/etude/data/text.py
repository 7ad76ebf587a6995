"""Queries with their teacher's vectors: a stream to learn from, and fixed sets to be judged by.

A teacher is asked for a text's vector once. What it said is kept in one SQLite file a teacher, about 2 kB a
text at 512 dimensions, so that trials and resumed runs on the same queries do not ask again.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.data.queries import QuerySampler
from etude.errors import UserError
from etude.evaluation.metrics import unit
from etude.students.tokens import Tokens, shorten
from etude.teachers.text import TextTeacher

_WAIT_S = 60.0  # for another process that writes to the same cache
_SAMPLE = 1024  # queries that the teacher's mean and spread are taken from
_AT_ONCE = 256  # texts looked up, or put to the teacher, at a time


class CachedTeacher:
    """A teacher's vectors by text, each computed once; many processes may use one folder at a time."""

    def __init__(self, teacher: TextTeacher, folder: Path, *, cuts: bool = False) -> None:
        """The file is `<folder>/<teacher.id>.sqlite`. Raises UserError if it cannot be used.

        With `cuts` the teacher may cut texts that are too long, which it warns of.
        """
        self.id, self.dim = teacher.id, teacher.dim
        self.normalized, self.license = teacher.normalized, teacher.license
        self.path = folder / f"{teacher.id}.sqlite"
        self._teacher = teacher
        self._cuts = cuts
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot keep the teacher's vectors in {folder}: {error.strerror}") from error
        with self._database() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL)"
            )

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Indices of the texts that are longer than the teacher takes."""
        return self._teacher.too_long(texts)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim] of texts, of which the teacher is asked only for the new ones.

        Raises UserError if one of these is longer than the teacher takes and must not be cut.
        """
        vectors_ND = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            vectors_ND[start : start + _AT_ONCE] = self._some(texts[start : start + _AT_ONCE])
        return vectors_ND

    def _some(self, texts: Sequence[str]) -> NDArray[np.float32]:
        wanted = {_key(text): text for text in texts}
        marks = ",".join("?" * len(wanted))
        with self._database() as database:
            query = f"SELECT text, vector FROM vectors WHERE text IN ({marks})"
            known = dict(database.execute(query, list(wanted)).fetchall())
        new = {key: text for key, text in wanted.items() if key not in known}
        if new:
            asked = list(new.values())
            for index in () if self._cuts else self._teacher.too_long(asked):
                shown = shorten(asked[index])
                raise UserError(f"the text {shown!r} is longer than {self.id} takes: shorten its terms")
            vectors_ND = np.asarray(self._teacher.embed(asked), dtype="<f4")
            assert vectors_ND.shape == (len(new), self.dim), f"{self.id} gave {vectors_ND.shape}"
            learnt = [(key, row.tobytes()) for key, row in zip(new, vectors_ND, strict=True)]
            with self._database() as database:
                database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", learnt)
            known |= dict(learnt)
        rows = [np.frombuffer(known[_key(text)], dtype="<f4") for text in texts]
        if any(len(row) != self.dim for row in rows):
            raise UserError(f"{self.path} holds vectors of another length than {self.dim}: remove it")
        return np.stack(rows)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection for one transaction, so that an object of this class may go to another process."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise UserError(f"the teacher's vectors in {self.path} cannot be used: {error}") from error


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


@dataclass(frozen=True)
class TextBatch:
    """Texts as tokens, with what their teacher says of them."""

    input_ids: Tensor  # [b, t] int64
    attention_mask: Tensor  # [b, t] int64, 1 on text and 0 on padding
    target: Tensor  # [b, dim] float32

    def to(self, device: torch.device) -> "TextBatch":
        return TextBatch(self.input_ids.to(device), self.attention_mask.to(device), self.target.to(device))


@dataclass(frozen=True)
class Queries:
    """A fixed set of queries that a student is judged by."""

    texts: tuple[str, ...]
    vectors: NDArray[np.float32]  # [n, dim], the teacher's
    tokens: Tokens

    def __len__(self) -> int:
        return len(self.texts)

    def batches(self, batch_size: int) -> Iterator[TextBatch]:
        """Every query once, in order."""
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield _batch(self.texts[part], self.vectors[part], self.tokens)


class QueryStream:
    """Fresh queries every epoch: a `TrainingData` of `etude.systems.base`."""

    def __init__(self, sampler: QuerySampler, teacher: CachedTeacher, tokens: Tokens) -> None:
        self.sampler = sampler
        self.teacher = teacher
        self.tokens = tokens

    def steps(self, batch_size: int) -> int:
        """How many batches an epoch has."""
        return max(1, self.sampler.config.per_epoch // batch_size)

    def batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[TextBatch]:
        """This rank's share of every global batch of an epoch: each takes every n-th query of it.

        What does not fill a global batch is left out, unless it would be everything. Raises UserError if
        the workers cannot share a batch evenly, or a query has more tokens than the student takes.
        """
        if batch_size % world_size:
            raise UserError(
                f"a batch of {batch_size} queries cannot be shared by {world_size} workers: choose a "
                "training.batch_size that is a multiple of workers.workers"
            )
        texts = self.sampler.training(seed, epoch)
        texts = texts * -(-batch_size // len(texts)) if len(texts) < batch_size else texts
        mine = texts[: self.steps(batch_size) * batch_size][rank::world_size]
        share = batch_size // world_size
        ahead = share * max(1, _AT_ONCE // share)
        for start in range(0, len(mine), ahead):
            vectors_ND = self.teacher.embed(mine[start : start + ahead])
            for first in range(0, len(vectors_ND), share):
                some = mine[start + first : start + first + share]
                yield _batch(some, vectors_ND[first : first + share], self.tokens)

    def target_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean [dim] and standard deviation [dim] of the teacher's vectors of the first epoch's queries."""
        texts = self.sampler.training(self.sampler.config.seed, 0)[:_SAMPLE]
        vectors_ND = self.teacher.embed(texts)
        return vectors_ND.mean(axis=0), vectors_ND.std(axis=0)

    def anchors(self) -> NDArray[np.float32]:
        """The teacher's vectors of all single terms at length 1, [n_terms, dim]: for the semantic term."""
        terms = dict.fromkeys(term for terms in self.sampler.terms.values() for term in terms)
        vectors_ND = self.teacher.embed(list(terms))
        return unit(vectors_ND).astype(np.float32)


@dataclass(frozen=True)
class TextSplits:
    """What a text student learns from and is judged by, and a hash of what they hold."""

    train: QueryStream
    validation: Queries
    test: Queries
    data_hash: str


def open_queries(sampler: QuerySampler, teacher: TextTeacher, tokens: Tokens, cache: Path) -> TextSplits:
    """The three sets of a sampler with a teacher's vectors, which are kept below the folder `cache`.

    Raises UserError if a held-out query has more tokens than the student takes.
    """
    cached = CachedTeacher(teacher, cache)
    validation, test = (
        Queries(texts, cached.embed(texts), tokens)
        for texts in (sampler.held_out("validation"), sampler.held_out("test"))
    )
    for queries in (validation, test):
        tokens.ids(queries.texts)
    digest = hashlib.sha256("\n".join([sampler.id, teacher.id, tokens.id]).encode()).hexdigest()[:12]
    return TextSplits(QueryStream(sampler, cached, tokens), validation, test, digest)


def _batch(texts: Sequence[str], vectors_ND: NDArray[np.float32], tokens: Tokens) -> TextBatch:
    input_ids, attention_mask = tokens.ids(texts)
    return TextBatch(input_ids, attention_mask, torch.from_numpy(vectors_ND))
