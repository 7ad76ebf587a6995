"""Files on this machine, in a configuration: workers run in folders of their own."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_PUBLISHED = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")  # owner/name, as on Hugging Face


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _folder_or_name(weights: str) -> str:
    path = Path(weights).expanduser()
    return weights if _PUBLISHED.fullmatch(weights) and not path.is_dir() else str(path.absolute())


LocalPath = Annotated[Path, AfterValidator(_absolute)]  # `~` is the home folder
Weights = Annotated[str, AfterValidator(_folder_or_name)]  # a folder, or the name of a published model
