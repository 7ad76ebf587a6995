"""A file on this machine, in a configuration: workers run in folders of their own."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


LocalPath = Annotated[Path, AfterValidator(_absolute)]  # `~` is the home folder
