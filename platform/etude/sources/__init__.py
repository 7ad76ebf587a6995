"""Where tracks come from; each source is one file here and one line in `SourceConfig` and `build_source`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from etude.sources.audiomuse import AudioMuseConfig, AudioMuseSource
from etude.sources.base import Source, Track
from etude.sources.captioned import CaptionedConfig, CaptionedSource
from etude.sources.demo import DemoConfig, DemoSource
from etude.sources.folder import FolderConfig, FolderSource
from etude.sources.jellyfin import JellyfinConfig, JellyfinSource
from etude.sources.musicbench import MusicBenchConfig, MusicBenchSource
from etude.sources.subsonic import SubsonicConfig, SubsonicSource

__all__ = [
    "AudioMuseConfig",
    "CaptionedConfig",
    "DemoConfig",
    "FolderConfig",
    "JellyfinConfig",
    "MusicBenchConfig",
    "Source",
    "SourceConfig",
    "SubsonicConfig",
    "Track",
    "build_source",
    "requests_at_a_time",
]

SourceConfig = Annotated[
    DemoConfig
    | FolderConfig
    | JellyfinConfig
    | SubsonicConfig
    | AudioMuseConfig
    | CaptionedConfig
    | MusicBenchConfig,
    Field(discriminator="name"),
]


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
        case CaptionedConfig():
            return CaptionedSource(config)
        case MusicBenchConfig():
            return MusicBenchSource(config)
        case DemoConfig():
            return DemoSource(config, cache)


def requests_at_a_time(config: SourceConfig) -> int | None:
    """How many files a source's server may be asked for at a time; None for a source without a server."""
    match config:
        case JellyfinConfig() | SubsonicConfig():
            return config.http.concurrency
        case AudioMuseConfig():
            return requests_at_a_time(config.audio)
    return None
