"""Qwen3-Embedding from its files: safetensors and JSON, nothing that could hold code.

A text is read at its last token, which the tokenizer adds and which has the id of the padding: only the mask
tells them apart. Sizes, prompt and padding: facts/projection_and_emotion.md, e.
"""

import contextlib
import json
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from etude.audio.torchaudio_cpu import import_torchaudio
from etude.errors import UserError
from etude.students.sentence_config import QwenEncoderConfig
from etude.students.sentence_parts import Pretrained, Reader
from etude.teachers.clap_text import load_tokenizer

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_WHOLE, _PARTS = "model.safetensors", "model-*-of-*.safetensors"
_END = "<|endoftext|>"
_MAKER = "Qwen/Qwen3-Embedding-"
_LEAST_ROOM = 4  # tokens of a text that the instruction must leave


def load_qwen(config: QwenEncoderConfig, device: str) -> Pretrained:
    """A Qwen3-Embedding on the CPU, in the precision that suits `device`, where it is to run.

    It comes from its folder or from the Hugging Face cache, and is downloaded if it is not there. Raises
    UserError if that fails, or if a file is missing, damaged or of another network.
    """
    folder = Path(config.model) if config.is_folder else _snapshot(config)
    network = _network_config(folder)
    weights, digest = _weights(folder)
    tokenizer, content = load_tokenizer(folder / "tokenizer.json")
    model = _network(network, weights, _dtype(config.precision, device), folder)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return Pretrained(
        id=f"qwen3-{digest}-{sha256(content).hexdigest()[:4]}",
        license="Apache-2.0" if config.model.startswith(_MAKER) else f"unknown: that of {config.model}",
        dim=network.hidden_size,
        model=model,
        reader=_reader(tokenizer, config, folder),
        pool=last_of_text,
        targets=TARGETS,
        exportable=False,
    )


def last_of_text(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The state [b, d] at the last token that the mask [b, t] marks, wherever the padding is, in float32."""
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = (mask_BT * place_T).argmax(dim=1)
    return hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B].float()


def _snapshot(config: QwenEncoderConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    name, revision = config.model, config.revision
    asked = {"revision": revision, "allow_patterns": ["config.json", "tokenizer.json", _WHOLE, _PARTS]}
    with contextlib.suppress(
        LocalEntryNotFoundError
    ):  # no look at the network, and no newer model, if it is here
        return Path(snapshot_download(name, **asked, local_files_only=True))
    try:
        return Path(snapshot_download(name, **asked))
    except (HTTPError, OSError) as error:
        at = f" --revision {revision}" if revision else ""
        raise UserError(
            f"{name} is not in the Hugging Face cache and cannot be downloaded ({type(error).__name__}): "
            f"fetch it with `hf download {name}{at}` where there is a network, or give its folder as model"
        ) from error


def _network_config(folder: Path) -> Any:
    import_torchaudio()  # transformers looks for it
    from transformers import Qwen3Config

    file = folder / "config.json"
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise UserError(
            f"cannot read {file}: {error.strerror}; give the folder of a Qwen3-Embedding"
        ) from None
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): fetch the model again") from None
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != "qwen3":
        raise UserError(f"{folder} holds a network of type {kind}, not a qwen3: give a Qwen3-Embedding")
    # A vector is of a whole text, so there are no keys and values to keep; and only adapters drop anything.
    return Qwen3Config.from_dict(content | {"use_cache": False, "attention_dropout": 0.0})


def _weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    """All tensors by name, mapped from the files where that can be, and eight digits of their sha256."""
    files = [folder / _WHOLE] if (folder / _WHOLE).is_file() else sorted(folder.glob(_PARTS))
    if not files:
        raise UserError(
            f"{folder} holds no {_WHOLE}, nor parts of one: fetch the model again; pickled weights (.bin, "
            ".pt) are never read"
        )
    weights: dict[str, Tensor] = {}
    digest = sha256()
    for file in files:
        with open(file, "rb") as opened:
            digest.update(file_digest(opened, "sha256").digest())
        try:
            weights |= safetensors.torch.load_file(file)
        except safetensors.SafetensorError as error:
            raise UserError(f"{file} is damaged ({error}): fetch the model again") from None
    # A language model's file holds the network as a part, beside a last layer that embedding has no use for.
    weights.pop("lm_head.weight", None)
    return {name.removeprefix("model."): value for name, value in weights.items()}, digest.hexdigest()[:8]


def _network(config: Any, weights: dict[str, Tensor], dtype: torch.dtype, folder: Path) -> Any:
    from transformers import Qwen3Model
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    with torch.device("meta"):  # billions of random numbers would be drawn otherwise
        model = Qwen3Model(config)
    wanted = model.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        shapes = [
            list(tensors[name].shape) if name in tensors else "nothing" for tensors in (wanted, weights)
        ]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{folder} does not fit together: config.json wants {name} of shape {shapes[0]}, the weights "
                f"hold {shapes[1]}; fetch the model again"
            )
    model.load_state_dict({name: value.to(dtype) for name, value in weights.items()}, assign=True)
    model.rotary_emb = Qwen3RotaryEmbedding(config)  # computed, in no file
    return model.eval().requires_grad_(False)


def _reader(tokenizer: Any, config: QwenEncoderConfig, folder: Path) -> Reader:
    end = _ending(tokenizer, folder)
    prefix = f"Instruct: {config.instruction}\nQuery:" if config.instruction else ""
    taken = len(tokenizer.encode(prefix).ids)
    if taken + _LEAST_ROOM > config.max_tokens:
        raise UserError(
            f"the instruction takes {taken} of {config.max_tokens} tokens, which leaves no room for a query: "
            "raise max_tokens or shorten it"
        )
    return Reader(tokenizer, config.max_tokens, end, pads_left=True, prefix=prefix)


def _ending(tokenizer: Any, folder: Path) -> int:
    """The token that the tokenizer ends every text with; where its file does not, it does from here on."""
    bare, whole = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
    if whole == bare and (end := tokenizer.token_to_id(_END)) is not None:
        tokenizer.post_processor = TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, end)])
        return int(end)
    if whole[:-1] != bare:
        raise UserError(
            f"the tokenizer in {folder} does not end a text with {_END} nor with another token of its own, "
            "where a text's vector is read: fetch the model again"
        )
    return int(whole[-1])


def _dtype(precision: str, device: str) -> torch.dtype:
    on_gpu = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported()
    half = precision == "bfloat16" or (precision == "auto" and on_gpu)
    return torch.bfloat16 if half else torch.float32
