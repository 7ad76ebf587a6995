"""What publishing a text projection takes: captions for the gate, what reading takes beside it, its card."""

import json
import logging
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from etude.data.projection import Described, Pair
from etude.errors import UserError
from etude.evaluation.cross_modal_plot import cross_modal_plot
from etude.evaluation.projection import ProjectionFigures
from etude.experiments.text_projection import FrozenReader, TextProjectionExperiment, TextProjectionStudy
from etude.export.audio import licenses
from etude.export.card import Card
from etude.export.onnx import read_metadata, run_onnx, session
from etude.export.parity import Parity, compare, require
from etude.students.sentence import build_sentence_encoder
from etude.students.sentence_config import SentenceEncoderConfig
from etude.students.tokens import Tokens
from etude.systems import text_projection
from etude.systems.text_projection import TextProjection

HEAD, TEXT, ADAPTERS = "projection_head.onnx", "text_encoder.onnx", "adapters.safetensors"
SUMMARY = "training_summary.json"
GATE_CAPTIONS = 64
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextProjectionRelease:
    """A text projection's study as `publish` wants it."""

    study: TextProjectionStudy
    comparable = ("teacher", "space", "captions")

    def record(self) -> dict[str, Any]:
        study, settings, reader = self.study, self.study.settings, self.study.encoder.reader
        return {
            "recipe_id": settings.recipe.id,
            "teacher": study.teacher.id,
            "teacher_license": study.teacher.license,
            "space": study.enrichment.id,
            "enrichment": study.enrichment.model_dump(mode="json"),
            "encoder": study.encoder.id,
            "frozen_encoder": self._frozen_id,
            "encoder_license": study.encoder.license,
            "tokenizer": Tokens(self._tokenizer, reader.max_tokens).id,
            "max_tokens": reader.max_tokens,
            "captions": settings.captions.id,
            "student": {
                "encoder": settings.encoder.model_dump(mode="json"),
                "head": settings.head.model_dump(mode="json"),
            },
            "normalized": True,
            "data_licenses": licenses(study.splits.train.dataset),
        }

    def check(self, system: TextProjection, files: Sequence[Path]) -> dict[str, Parity]:
        """The head over what the encoder says of captions, and the whole over their tokens."""
        reader = self.study.encoder.reader
        texts, _ = _captions(self.study.test)
        some = texts[:GATE_CAPTIONS]
        input_ids, mask = self.study.encoder.tokens(some, queries=True)
        with torch.inference_mode():
            vector_ND = system.text.encoder(input_ids, mask)
            placed_ND = system.text.head(vector_ND).numpy()
        results = {"text_vector": compare(placed_ND, run_onnx(session(files[0]), vector_ND.numpy(), 16))}
        if len(files) > 1:
            tokens = Tokens(self._tokenizer, reader.max_tokens)
            results["input_ids"] = compare(placed_ND, _over_tokens(files[1], tokens, some))
        require(results)
        return results

    def score(self, files: Sequence[Path]) -> ProjectionFigures:
        """Raises UserError if the files' encoder is another that is not among them."""
        study, named = self.study, {file.name: file for file in files}
        texts, pairs = _captions(study.validation)
        record = read_metadata(files[0])
        reader = study.validation.reader
        if isinstance(reader, FrozenReader) and record.get("frozen_encoder") == self._frozen_id:
            placed_CD = run_onnx(session(files[0]), reader.encoder.embed(texts), 16)
        elif ADAPTERS in named and record["encoder"] == study.encoder.id:
            placed_CD = run_onnx(session(files[0]), _adapted(record, named[ADAPTERS], texts), 16)
        elif TEXT in named:
            tokens = Tokens(named["tokenizer.json"].read_bytes(), int(str(record["max_tokens"])))
            placed_CD = _over_tokens(named[TEXT], tokens, texts)
        else:
            raise UserError(f"its encoder {record['encoder']} is not in its files")
        return text_projection.compare(placed_CD, pairs, study.validation, math.nan)

    def card(self) -> Card:
        study, settings = self.study, self.study.settings
        files = [(HEAD, f"`text_vector` (batch, {study.encoder.dim}) of {study.encoder.id}")]
        if study.encoder.exportable:
            files.append(
                (TEXT, f"`input_ids`, `attention_mask` (batch, {study.encoder.reader.max_tokens}) int64")
            )
        return Card(
            tags=("music", "text-to-music-retrieval"),
            what=f"captions, in its space ({study.enrichment.describe()})",
            files=tuple(files),
            figures_on=f"{len(study.test)} held-out tracks with captions of {settings.captions.id}",
            licenses=(
                f"the audio model's weights: {study.teacher.license}",
                f"the text encoder's weights: {study.encoder.license}",
                *(f"{count} tracks: {one}" for one, count in licenses(study.splits.train.dataset).items()),
            ),
        )

    def plots(self, system: TextProjection, folder: Path) -> list[Path]:
        """Both ways' recall; and what reading takes: the tokenizer, and adapters if there are any."""
        study = self.study
        found = system.evaluate(study.test, study.settings.training.batch_size)
        beside = [cross_modal_plot(found.retrieval, folder / "retrieval.png"), folder / "tokenizer.json"]
        beside[1].write_bytes(self._tokenizer)
        if study.settings.encoder.lora:
            beside.append(folder / ADAPTERS)
            save_file(system.text.encoder.state_dict(), beside[-1])
        return beside

    @property
    def _frozen_id(self) -> str:
        """What a vector of a frozen encoder depends on; empty for one that learned."""
        reader = self.study.validation.reader
        return reader.encoder.id if isinstance(reader, FrozenReader) else ""

    @property
    def _tokenizer(self) -> bytes:
        """The encoder's tokenizer.json."""
        content: str = self.study.encoder.reader.tokenizer.to_str()
        return content.encode()


def add_to_summary(home: Path, space: str, figures: ProjectionFigures) -> Path:
    """Put a space's figures on its test set into the summary over all spaces, in seed 3's names."""
    path = home / "exports" / TextProjectionExperiment.system / SUMMARY
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        log.warning("%s was no JSON, and begins anew with this space", path)
        known = {}
    temporary = path.with_name(f".{SUMMARY}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(json.dumps(known | {space: figures.named()}, indent=2) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _adapted(record: Mapping[str, Any], adapters: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """What the encoder of a record says of texts [n, text_dim], with the adapters that were learned."""
    said = record["student"]["encoder"]
    config: SentenceEncoderConfig = TypeAdapter(SentenceEncoderConfig).validate_python(said)
    encoder = build_sentence_encoder(config).eval()
    encoder.load_state_dict(load_file(adapters))
    with torch.inference_mode():
        parts = [encoder(*encoder.tokens(texts[i : i + 16], queries=True)) for i in range(0, len(texts), 16)]
    return torch.cat(parts).numpy()


def _captions(described: Described) -> tuple[list[str], list[Pair]]:
    pairs = described.pairs()
    return [described.captions[track][number] for track, number in pairs], pairs


def _over_tokens(path: Path, tokens: Tokens, texts: Sequence[str]) -> NDArray[np.float32]:
    input_ids, mask = tokens.ids(texts, tokens.max_tokens, cut=True)
    named = {"input_ids": input_ids.numpy(), "attention_mask": mask.numpy()}
    return run_onnx(session(path), named, 16)
