"""Where tracks come from; each source is one file here and one line in `SourceConfig`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from etude.sources.base import Source, Track
from etude.sources.demo import DemoConfig, DemoSource
from etude.sources.folder import FolderConfig, FolderSource

__all__ = ["DemoConfig", "FolderConfig", "Source", "SourceConfig", "Track", "build_source"]

SourceConfig = Annotated[DemoConfig | FolderConfig, Field(discriminator="name")]


def build_source(config: DemoConfig | FolderConfig, cache: Path) -> Source:
    """The source that a configuration names; `cache` is a folder for what has to be made first."""
    if isinstance(config, FolderConfig):
        return FolderSource(config)
    return DemoSource(config, cache)
