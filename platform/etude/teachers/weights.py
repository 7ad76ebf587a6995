"""A published model's files: found on this machine, named by their hash, and read as data.

Nothing is downloaded here and no code of a model is executed: what a name on Hugging Face stands for can
change, so a model is what lies on this disk, and the hash of its files goes into its teacher's id.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from etude.errors import UserError
from etude.torch_file import NUMBERS, read_torch_file


def model_folder(weights: str, what: str, files: str = "") -> Path:
    """The folder that is named, or the one in which Hugging Face's cache keeps the published model.

    Raises UserError if it is not here, with the command that fetches it: all of it, or only `files`.
    """
    if Path(weights).is_absolute():
        if not Path(weights).is_dir():
            raise UserError(f"there is no folder {weights} with the files of {what}: set teacher.weights")
        return Path(weights)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(weights, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise UserError(
            f"{weights}, the files of {what}, is not on this machine, and nothing is downloaded while music "
            f"is heard: fetch it with `hf download {weights}{files and ' ' + files}`, or set teacher.weights "
            "to a folder that has them"
        ) from None


def file_in(folder: Path, *names: str, what: str) -> Path:
    """The first of these files that a model's folder has. Raises UserError if it has none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} is no {what}: it has no file {' or '.join(names)}; fetch it again")


def tensors_file(folder: Path, what: str) -> Path:
    """Where a model's tensors lie. Raises UserError if they lie nowhere."""
    return file_in(folder, "model.safetensors", "pytorch_model.bin", what=what)


def read_json(path: Path) -> dict[str, Any]:
    """A model's configuration. Raises UserError if it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): fetch the model again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no keys and values: fetch the model again")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises UserError if it is damaged, or holds code."""
    mend = "fetch the model again"
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"the weights {path} cannot be read ({error}): {mend}") from error
    found = read_torch_file(path, "the weights", mend, NUMBERS)
    if not isinstance(found, Mapping):
        raise UserError(f"the weights {path} hold no tensors by name: {mend}")
    return {str(name): one for name, one in found.items() if isinstance(one, Tensor)}


def digest(*files: Path) -> str:
    """Eight digits that change with the contents of any of the files."""
    hashes = []
    for file in files:
        known = file.stat()
        hashes.append(_sha256(file.resolve(), known.st_size, known.st_mtime_ns))
    return sha256("".join(hashes).encode()).hexdigest()[:8]


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Of gigabytes, for which several parts of one job ask; size and time tell a file that changed."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def fill(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, file: Path, what: str) -> None:
    """Load the tensors whose names begin with `prefix`; others are not looked at.

    Raises UserError if one that the module has is missing, or has another shape.
    """
    expected = module.state_dict()
    for name, tensor in expected.items():
        found = tensors.get(prefix + name)
        if found is None or found.shape != tensor.shape:
            shape = "nothing" if found is None else list(found.shape)
            raise UserError(
                f"{file} is no {what}: it has {shape} at {prefix}{name}, not {list(tensor.shape)}; "
                "choose another file"
            )
    module.load_state_dict({name: tensors[prefix + name] for name in expected})
