"""The two that can understand a query: a teacher's text encoder, and an exported text student."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from etude.errors import UserError
from etude.evaluation.metrics import unit
from etude.export.onnx import read_metadata, run_onnx, session
from etude.students.tokens import load_tokenizer, shorten
from etude.teachers import ClapConfig, MusiCNNConfig, TeacherConfig
from etude.teachers.clap_text import MAX_TOKENS, ClapText

_BATCH_SIZE = 16


class Encoder(Protocol):
    """Texts to vectors in the space of the tracks."""

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Indices of the texts that are longer than the model takes."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, dim]."""
        ...


def encoder_of(teacher: TeacherConfig) -> ClapText | None:
    """The text encoder that belongs to an audio teacher, if any. Raises UserError if it is damaged."""
    if isinstance(teacher, ClapConfig) and teacher.text_model and teacher.tokenizer:
        return ClapText(teacher.text_model, teacher.tokenizer)
    return None


def without_encoder(teacher: TeacherConfig) -> str:
    """A sentence about a teacher that has no text encoder."""
    if isinstance(teacher, ClapConfig):
        return (
            "the teacher's text encoder is not set: give --teacher.text_model and --teacher.tokenizer "
            "for text queries"
        )
    if isinstance(teacher, MusiCNNConfig):
        return f"this teacher, {teacher.name}, understands no text"
    return f"Étude has no text encoder for this teacher, {teacher.name}, so it understands no text here"


def embed_queries(encoder: Encoder, queries: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors [n, dim]. Raises UserError if a query is longer than the model takes."""
    if too_long := encoder.too_long(queries):
        limit = encoder.max_tokens if isinstance(encoder, ExportedText) else MAX_TOKENS
        raise UserError(
            f"the query {shorten(queries[too_long[0]])!r} is longer than the text model takes "
            f"({limit} tokens, start and end included): shorten it"
        )
    return unit(encoder.embed(queries))


class TextFile:
    """A text encoder that Étude has exported, with the `tokenizer.json` that lies beside it.

    Raises UserError if a file is missing or not from Étude, or if the two do not fit each other.
    """

    def __init__(self, path: Path) -> None:
        record = read_record(path)
        if "max_tokens" not in record:
            raise UserError(f"{path} is no text student: give a text_student.onnx")
        self.record = record
        self.max_tokens = int(str(record["max_tokens"]))
        self.tokens = load_tokenizer(path.parent / "tokenizer.json", self.max_tokens)
        if self.tokens.id != record["tokenizer"]:
            raise UserError(
                f"the tokenizer.json beside {path} is not {record['tokenizer']}, with which it was trained: "
                "put that one beside it"
            )
        self._session = session(path)

    def too_long(self, texts: Sequence[str]) -> list[int]:
        return self.tokens.too_long(texts)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        input_ids, attention_mask = self.tokens.ids(texts, self.max_tokens)
        named = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return run_onnx(self._session, named, _BATCH_SIZE)


class ExportedText(TextFile):
    """An exported text student, `text_student.onnx`, of one teacher.

    `teacher` is the id of the text teacher whose space it must have learned. Raises UserError as `TextFile`
    does, or if it is another.
    """

    def __init__(self, path: Path, teacher: str) -> None:
        super().__init__(path)
        if self.record["teacher"] != teacher:
            raise UserError(
                f"{path} learned from {self.record['teacher']}, the tracks are found by {teacher}: their "
                "vectors cannot be compared; give a text student of this teacher"
            )
        self.hash = hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def read_record(path: Path) -> dict[str, object]:
    """What an exported file says of how it was made. Raises UserError if it is missing or says nothing."""
    try:
        path.open("rb").close()
        record = read_metadata(path) if path.suffix == ".onnx" else {}
    except OSError as error:
        raise UserError(
            f"cannot read the model {path}: {error.strerror or error}; give a file that Étude has exported"
        ) from None
    except DecodeError:
        record = {}
    if not record:
        raise UserError(f"{path} is not an ONNX file that Étude has exported: choose another")
    return record
