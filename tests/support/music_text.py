"""A tiny pair of encoders whose answers can be foretold, and a library of three tones for it.

The words "low", "mid" and "high" and the loudness of three bands have the same three directions.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torch.nn.functional import normalize

from etude.audio.decode import decode
from etude.audio.mel import log_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.waveform import prepare_waveform
from etude.data.store import Store, features_part
from etude.export.onnx import export_onnx, write_metadata
from etude.sources import FolderConfig, build_source
from etude.students.tokens import Tokens
from etude.systems.base import ExportSpec

DIM, MAX_TOKENS = 8, 12
WORDS = ("low", "mid", "high")
BANDS = (slice(0, 20), slice(20, 70), slice(70, 128))  # mel bands
TONES_HZ = {"Low <b>tone": 120.0, "Mid tone": 1500.0, "High tone": 8000.0}
_CENTRED = torch.eye(3) - 1 / 3  # both encoders give differences from the mean


class Music(nn.Module):
    """Mels [b, 1, n_mels, n_frames] to unit vectors [b, DIM]: which band is the loudest."""

    def __init__(self) -> None:
        super().__init__()
        self.directions = nn.Parameter(nn.functional.pad(_CENTRED, (0, DIM - 3)))

    def forward(self, mel: Tensor) -> Tensor:
        level = mel[:, 0].mean(dim=2)
        bands = torch.stack([level[:, band].max(dim=1).values for band in BANDS], dim=1)
        return normalize(bands @ self.directions, dim=1)


class Text(nn.Module):
    """Ids and mask [b, t] to unit vectors [b, DIM]: the mean of the known words' directions."""

    def __init__(self, vocabulary: int, known: dict[str, int]) -> None:
        super().__init__()
        table = torch.full((vocabulary, DIM), 1e-3)
        for i, word in enumerate(WORDS):
            table[known[word]] = nn.functional.pad(_CENTRED[i], (0, DIM - 3))
        self.table = nn.Parameter(table)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        vectors = self.table[input_ids] * attention_mask[:, :, None]
        return normalize(vectors.sum(dim=1), dim=1)


def tokenizer_json(words: tuple[str, ...] = WORDS) -> bytes:
    """Whole words, lower-cased, between [CLS] and [SEP]."""
    table = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "tone", "very", *words))}
    tokenizer = Tokenizer(WordLevel(table, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(tokenizer.to_str()).encode()


def export_pair(folder: Path, space_id: str = "space-a") -> Path:
    """`music_encoder.onnx`, `text_encoder.onnx` and `tokenizer.json`, with their records."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = FeatureRecipe()
    tokens = Tokens(tokenizer_json(), MAX_TOKENS)
    (folder / "tokenizer.json").write_bytes(tokens.content)
    ids = torch.ones(2, MAX_TOKENS, dtype=torch.int64)
    known = Tokenizer.from_str(tokens.content.decode()).get_vocab()
    specs = [
        ExportSpec(
            "music_encoder", Music(), {"mel_spectrogram": torch.zeros(2, 1, recipe.n_mels, recipe.n_frames)}
        ),
        ExportSpec(
            "text_encoder", Text(tokens.vocabulary, known), {"input_ids": ids, "attention_mask": ids.clone()}
        ),
    ]
    for spec in specs:
        write_metadata(
            export_onnx(spec, folder),
            {
                "space_id": space_id, "tokenizer": tokens.id, "max_tokens": MAX_TOKENS,
                "recipe": recipe.model_dump(), "recipe_id": recipe.id,
            },
        )  # fmt: skip
    return folder


def tone(hz: float, seconds: float = 4.0) -> bytes:
    """A FLAC file of one tone, mono, 48 kHz."""
    time = np.arange(round(48_000 * seconds)) / 48_000
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * hz * time), 48_000, format="FLAC")
    return file.getvalue()


def tone_library(home: Path) -> FolderConfig:
    """A folder of tones below `home`, its features in the store; there is no teacher."""
    config = FolderConfig(path=home / "music")
    (home / "music").mkdir(parents=True)
    for title, hz in TONES_HZ.items():
        (home / "music" / f"{title}.flac").write_bytes(tone(hz))
    prepare(home, config)
    return config


def prepare(home: Path, config: FolderConfig) -> None:
    """List a folder and write its features."""
    recipe, source, store = FeatureRecipe(), build_source(config, home / "cache"), Store(home / "store")
    tracks = list(source.tracks())
    rows = []
    for track in tracks:
        files = {path.as_uri(): path for path in config.path.iterdir()}
        mel = log_mel(prepare_waveform(decode(files[track.uri].read_bytes()), recipe), recipe)
        rows.append(
            {
                "track_id": track.id,
                "n_samples": mel.n_samples,
                "frames": mel.frames.astype(np.float16).tobytes(),
            }
        )
    store.write_catalogue(source.id, tracks)
    schema = pa.schema([("track_id", pa.string()), ("n_samples", pa.int64()), ("frames", pa.large_binary())])
    store.write_shard(features_part(recipe), pa.Table.from_pylist(rows, schema=schema))


def searchable_home(home: Path) -> Path:
    """A home with the library and an export whose config.yaml says so; returns the export's folder."""
    library = tone_library(home)
    folder = export_pair(home / "exports" / "music-text" / "train-0")
    config = {"home": str(home), "source": {"name": "folder", "path": str(library.path)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder
