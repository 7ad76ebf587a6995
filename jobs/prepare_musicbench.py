"""Prepare MusicBench, or any captioned music, in one or all audio spaces for jobs/train_projection.py.

    python jobs/prepare_musicbench.py --source.path ~/MusicBench --space muq --accept-licence
    python jobs/prepare_musicbench.py --source.path ~/MusicBench --space all --export-hdf5 embeddings.h5
    python jobs/prepare_musicbench.py --source.name captioned --source.path ~/clips --space musicnn
    python jobs/prepare_musicbench.py --source.path ~/MusicBench --plan

A rerun does only what is missing. `--export-hdf5` writes seed 3's file of enriched vectors and reads it back.
All keys: --help.
"""

import sys
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from etude.cli import guarded, say
from etude.config import load
from etude.data.hdf5 import write_hdf5
from etude.errors import UserError
from etude.experiments.base import configuration
from etude.experiments.spaces import OverSpaces
from etude.sources import SourceConfig
from etude.workflow import captioning_plan, prepare_captioned


def _no_source() -> SourceConfig:
    raise UserError(
        "say which music: --source.path DIR, MusicBench's or with --source.name captioned another"
    )


class PrepareMusicBench(OverSpaces):
    """Prepare captioned music for text projections. Files: --config FILE.yaml."""

    # A factory: a default would lay its own name under what was given without one.
    source: SourceConfig = Field(default_factory=_no_source, discriminator="name")
    plan: bool = False
    export_hdf5: Path | None = Field(None, description="a file of all spaces' vectors, as seed 3 has it")

    @model_validator(mode="before")
    @classmethod
    def _musicbench(cls, data: Any) -> Any:
        source = data.get("source") if isinstance(data, dict) else None
        if isinstance(source, dict) and "name" not in source:
            return data | {"source": source | {"name": "musicbench"}}
        return data


def main(argv: list[str]) -> int:
    settings = load(PrepareMusicBench, argv)
    if settings.plan:
        say(captioning_plan(settings))
        return 0
    prepare_captioned(settings)
    if settings.export_hdf5:
        spaces = {one.space_name: one.described() for one in settings.each()}
        n_rows = write_hdf5(settings.export_hdf5, spaces, configuration(settings))
        say(f"wrote {n_rows} rows of {', '.join(spaces)}, and read them back: {settings.export_hdf5}")
    say(
        f"next: python jobs/train_projection.py --source.name {settings.source.name}, and the same "
        "--source and --space"
    )
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
