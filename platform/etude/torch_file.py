"""PyTorch files as data: whatever code one holds is not executed."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.errors import UserError

# NumPy's numbers, a best score for instance, stand beside the tensors of some files; they are harmless.
_SCALAR = np._core.multiarray.scalar  # type: ignore[attr-defined]
NUMBERS: tuple[Any, ...] = (
    (_SCALAR, "numpy.core.multiarray.scalar"), _SCALAR, np.dtype, np.dtypes.Float64DType,
)  # fmt: skip


def read_torch_file(
    path: Path | str, what: str, mend: str, allowed: Sequence[Any] = (), content: bytes | None = None
) -> Any:
    """Tensors and plain values of a file, on the CPU; `allowed` are harmless types that may be among them,
    `content` is what the file holds if it was read already.

    Raises UserError if the file is missing, damaged or holds code: `what` names it, `mend` says what to do.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(
                path if content is None else io.BytesIO(content), map_location="cpu", weights_only=True
            )
    except OSError as error:
        raise UserError(f"cannot read {what} {path} ({error.strerror or error}): {mend}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{what} {path} is damaged, or it holds pickled code, which is never executed: {mend}"
        ) from error
    except Exception as error:  # bytes that are no archive break PyTorch's reader in any way
        raise UserError(f"{what} {path} is damaged, or no PyTorch file: {mend}") from error
