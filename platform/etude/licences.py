"""Licences that forbid commercial use are accepted once, in so many words, before the weights are used."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.teachers import AudioSpaceConfig, TeacherConfig

OPTION = "--accept-licence"


def require_licences(home: Path, teachers: Sequence[TeacherConfig], accept: bool) -> None:
    """Check that what restricts the use of the teachers' weights was accepted; `accept` does so, and is kept.

    Accepted are the licences of these teachers alone, in `licences.json` below `home`; one that changes has
    to be accepted anew. Raises UserError that names the weights, the licence and the option.
    """
    restricted = [teacher for teacher in teachers if isinstance(teacher, AudioSpaceConfig)]
    path = home / "licences.json"
    accepted = _read(path)
    lacking = [one for one in restricted if accepted.get(one.name, {}).get("licence") != one.license]
    if not lacking:
        return
    if not accept:
        first = lacking[0]
        raise UserError(
            f"the weights of {first.title} ({first.weights}) are under {first.license}, which forbids "
            f"commercial use, of the vectors and of what learns from them too: read it, and say once {OPTION}"
        )
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    _write(path, accepted | {one.name: {"licence": one.license, "accepted": today} for one in lacking})


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): mend it, or delete it and use {OPTION}") from None
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise UserError(f"{path} lists no licences: delete it and use {OPTION}")
    return found


def _write(path: Path, accepted: dict[str, dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(accepted, indent=2) + "\n")
    os.replace(temporary, path)
