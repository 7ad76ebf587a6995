"""What a check of one thing came to, as jobs/doctor.py and jobs/cluster.py print it."""

from dataclasses import dataclass
from typing import Literal

from etude.config import mask


@dataclass(frozen=True)
class Finding:
    """What was found of one thing; the text of a problem says how to mend it."""

    name: str
    state: Literal["ok", "advice", "problem", "not used"]
    text: str

    def __str__(self) -> str:
        first, *more = str(mask(self.text)).splitlines()
        return "\n".join([f"{self.state:9} {self.name:9} {first}", *(f"{'':20}{line}" for line in more)])


class NotUsed(Exception):  # noqa: N818
    """Nothing to check: it is done without."""
