"""Pretrained text encoders, frozen or with adapters that learn.

A new one is a file, a section in `sentence_config.py` and a line in `build_sentence_encoder`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from etude.students.lora import with_lora
from etude.students.sentence_config import (
    LoraConfig,
    MiniLMEncoderConfig,
    QwenEncoderConfig,
    SentenceEncoderConfig,
)
from etude.students.sentence_minilm import load_minilm
from etude.students.sentence_parts import Pretrained
from etude.students.sentence_qwen import load_qwen

__all__ = ["LoraConfig", "SentenceEncoder", "SentenceEncoderConfig", "build_sentence_encoder", "usual_device"]


class SentenceEncoder(nn.Module):
    """Token ids and mask [b, t] to vectors [b, dim] of length 1, in float32 whatever computes them.

    The state dict holds the adapters and nothing else, so that a checkpoint has megabytes where the frozen
    network has gigabytes; without adapters it is empty. It loads into an encoder of the same `id`, within
    another module or alone, and what is missing or too much among it is an error as always.
    """

    def __init__(self, pretrained: Pretrained, lora: LoraConfig | None = None) -> None:
        """With `lora` the network of `pretrained` is adapted in place."""
        super().__init__()
        self.id, self.license, self.dim = pretrained.id, pretrained.license, pretrained.dim
        self.reader, self.exportable = pretrained.reader, pretrained.exportable
        self._pool = pretrained.pool
        frozen = pretrained.model.requires_grad_(False)
        self.model = with_lora(frozen, pretrained.targets, lora) if lora else frozen
        self._adapters = frozenset(name for name, p in self.named_parameters() if p.requires_grad)
        self.register_state_dict_post_hook(_adapters_alone)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_what_is_frozen)  # type: ignore[no-untyped-call]

    @property
    def trained(self) -> list[nn.Parameter]:
        """The adapters' weights, which are all that may learn."""
        return [parameter for name, parameter in self.named_parameters() if name in self._adapters]

    def tokens(self, texts: Sequence[str], queries: bool) -> tuple[Tensor, Tensor]:
        """(input_ids [b, t], attention_mask [b, t]), both int64, on the CPU; queries get their prefix.

        What is too long is cut, and a warning says how many that were. Raises UserError if a text is empty.
        """
        return self.reader.padded(self.reader.ids(texts, queries))

    def too_long(self, texts: Sequence[str], queries: bool = True) -> list[int]:
        """Indices of the texts that `tokens` would cut."""
        return self.reader.too_long(texts, queries)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors [b, dim]. Both inputs are int64 [b, t]; the mask is 1 on text, whichever side is padded."""
        # Counted from the text's own beginning, so that padding on the left does not move it.
        position_BT = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
        # Nothing is kept for a gradient that reaches no adapter.
        learns = any(parameter.requires_grad for parameter in self.trained)
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            hidden_BTD = self.model(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_BT
            ).last_hidden_state
            return functional.normalize(self._pool(hidden_BTD, attention_mask), dim=1)


def build_sentence_encoder(
    config: MiniLMEncoderConfig | QwenEncoderConfig, device: str = "cpu"
) -> SentenceEncoder:
    """Load an encoder, to run on a PyTorch device; `torch.manual_seed` before it decides its adapters.

    Raises UserError if what it needs is missing or damaged.
    """
    pretrained = load_minilm() if isinstance(config, MiniLMEncoderConfig) else load_qwen(config, device)
    return SentenceEncoder(pretrained, config.lora).to(device)


def usual_device() -> str:
    """Where a large encoder reads: on a GPU if this process has one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _adapters_alone(
    encoder: SentenceEncoder, state: dict[str, Any], prefix: str, _metadata: Mapping[str, Any]
) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        if name.removeprefix(prefix) not in encoder._adapters:
            del state[name]


def _with_what_is_frozen(
    encoder: SentenceEncoder,
    state: dict[str, Any],
    prefix: str,
    _metadata: Mapping[str, Any],
    _strict: bool,
    _missing: list[str],
    unexpected: list[str],
    _errors: list[str],
) -> None:
    """The frozen network stands in for itself, so that strict loading misses nothing of it."""
    own = encoder.model.state_dict(prefix=f"{prefix}model.", keep_vars=True)
    for name, value in own.items():
        if name.removeprefix(prefix) not in encoder._adapters:
            if name in state:
                unexpected.append(name)
            state[name] = value
