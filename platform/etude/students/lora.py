"""LoRA through peft: a frozen network of which small matrices beside its linear layers learn."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from etude.audio.torchaudio_cpu import import_torchaudio
from etude.students.sentence_config import LoraConfig


def with_lora(model: Any, targets: Sequence[str], config: LoraConfig) -> nn.Module:
    """A transformers model whose layers of these names are adapted; only adapters have gradients.

    At the start they add nothing; `torch.manual_seed` before decides their weights, which are float32
    whatever the model's are. The model itself is changed.
    """
    import_torchaudio()  # transformers, which peft imports, looks for it
    import peft

    settings = peft.LoraConfig(
        task_type=peft.TaskType.FEATURE_EXTRACTION,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(targets),
        bias="none",
    )
    with warnings.catch_warnings():
        # peft asks transformers for gradient checkpointing by a name that the latter is about to change.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        adapted: nn.Module = peft.get_peft_model(model, settings)
    return adapted
