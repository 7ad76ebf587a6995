"""torchaudio beside a PyTorch without CUDA.

The torchaudio wheel on PyPI is linked against CUDA, and its package loads that library on import. On a
CPU-only PyTorch, `import torchaudio` therefore fails, and with it `import transformers`, which looks for
torchaudio. Spectrograms and filters are plain PyTorch and need no library, so the submodule that loads it
is replaced, in this process only and before the first import, by one that says "not available"
(facts/packages.md, 6).
"""

import importlib
import sys
from collections.abc import Callable
from functools import wraps
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

import torch

from etude.errors import UserError

_EXTENSION = "torchaudio._extension"


def import_torchaudio() -> ModuleType:
    """Import torchaudio whether or not PyTorch has CUDA; later imports of it by others then work too.

    Raises UserError if it is not installed.
    """
    if torch.version.cuda is None and _EXTENSION not in sys.modules:
        sys.modules[_EXTENSION] = _absent_extension()
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        if error.name != "torchaudio":
            raise
        raise UserError(
            "mels on a GPU need torchaudio, which is not installed; install it with "
            "`pip install --no-deps torchaudio==2.11.0` or compute the mels on the CPU"
        ) from error


def _absent_extension() -> ModuleType:
    """The submodule's public face, as torchaudio itself sets it when it finds no library."""
    module = ModuleType(_EXTENSION)
    module.__spec__ = ModuleSpec(_EXTENSION, loader=None)
    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False, _IS_ALIGN_AVAILABLE=False, fail_if_no_align=_refused
    )
    return module


def _refused(function: Callable[..., object]) -> Callable[..., NoReturn]:
    @wraps(function)
    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(f"torchaudio's {function.__name__} needs a PyTorch built with CUDA")

    return refuse
