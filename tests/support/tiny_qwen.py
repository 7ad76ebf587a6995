"""A Qwen3-Embedding small enough to be made in a test: the real network and formats, random weights.

The published weights cannot be had here, so what its vectors mean cannot be tested; how they are read can.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from etude.audio.torchaudio_cpu import import_torchaudio

END = "<|endoftext|>"  # what the real tokenizer adds to every text, and pads with
_WORDS = [
    "Instruct: Given a description of music, retrieve the pieces of music that it describes\nQuery:",
    "a calm and dreamy string quartet, slow piano, loud drums without guitar",
]


def write_tiny_qwen(folder: Path, **changed: Any) -> Path:
    """Write config.json, model.safetensors and tokenizer.json; `changed` are keys of the configuration."""
    import_torchaudio()
    from transformers import Qwen3Config, Qwen3Model

    tokenizer = _tokenizer()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {
        "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48,
    }  # fmt: skip
    torch.manual_seed(3)
    model = Qwen3Model(Qwen3Config(**sizes | changed))
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)  # the library's 0.02 makes all texts alike
    model.save_pretrained(folder)
    return folder


def cached_as(name: str, folder: Path, cache: Path, commit: str = "c" * 40) -> Path:
    """Lay a model's folder into a Hugging Face cache as its newest version; the folder of that version."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    return folder.rename(repository / "snapshots" / commit)


def change_json(file: Path, **changed: Any) -> None:
    """Other values for some keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_WORDS, trainer)
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, end)])
    tokenizer.enable_padding(direction="left", pad_id=end, pad_token=END)
    return tokenizer
