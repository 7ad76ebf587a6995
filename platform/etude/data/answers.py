"""What a teacher gives for one track, as a row's field: vectors, or why there are none."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.errors import BadAudio, OutOfReach
from etude.teachers.base import Targets


def answer(teacher_id: str, ask: Callable[[], Targets]) -> dict[str, Any]:
    """What one teacher gives for a track: its vectors, or why there are none. It costs no other teacher."""
    try:
        targets = ask()
        segments, track = (finite(array, "teacher's vector") for array in (targets.segments, targets.track))
    except BadAudio as error:
        return {"teacher": teacher_id, "status": "quarantined", "reason": str(error)}
    except OutOfReach as error:
        return {"teacher": teacher_id, "status": "unreachable", "reason": str(error)}
    vectors = {"segments": segments.astype(np.float32).tobytes(), "track": track.astype(np.float32).tobytes()}
    return {"teacher": teacher_id, "status": "prepared"} | vectors


def finite(array: NDArray[Any], what: str) -> NDArray[Any]:
    """The array as it is. Raises BadAudio if it holds NaN or infinity."""
    if not np.isfinite(array).all():
        raise BadAudio(f"its {what} is not finite: some samples are absurdly loud")
    return array
