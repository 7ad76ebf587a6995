"""Where tracks come from; each source is one file here and one line in `SourceConfig` and `build_source`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from etude.sources.audiomuse import AudioMuseConfig, AudioMuseSource
from etude.sources.base import Source, Track
from etude.sources.demo import DemoConfig, DemoSource
from etude.sources.folder import FolderConfig, FolderSource
from etude.sources.jellyfin import JellyfinConfig, JellyfinSource
from etude.sources.subsonic import SubsonicConfig, SubsonicSource

__all__ = [
    "AudioMuseConfig",
    "DemoConfig",
    "FolderConfig",
    "JellyfinConfig",
    "Source",
    "SourceConfig",
    "SubsonicConfig",
    "Track",
    "build_source",
]

SourceConfig = Annotated[
    DemoConfig | FolderConfig | JellyfinConfig | SubsonicConfig | AudioMuseConfig, Field(discriminator="name")
]

REMOTE = (JellyfinConfig, SubsonicConfig, AudioMuseConfig)  # a server of its own limits how fast it is asked


def build_source(config: SourceConfig, cache: Path) -> Source:
    """The source that a configuration names; `cache` is a folder for what is made or fetched first."""
    match config:
        case FolderConfig():
            return FolderSource(config)
        case JellyfinConfig():
            return JellyfinSource(config, cache)
        case SubsonicConfig():
            return SubsonicSource(config, cache)
        case AudioMuseConfig():
            return AudioMuseSource(config, cache)
        case DemoConfig():
            return DemoSource(config, cache)
