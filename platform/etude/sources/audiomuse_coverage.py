"""Rows without audio and audio without a row: AudioMuse-AI's catalogue beside the library it came from."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from etude.errors import BadAudio, OutOfReach
from etude.sources import FolderConfig, build_source
from etude.sources.audiomuse import AudioMuseConfig, AudioMuseSource, file_below


def coverage(config: AudioMuseConfig, cache: Path) -> list[str]:
    """List both sides whole and say, a sentence each, what only one of them has.

    Raises UserError if either cannot be listed.
    """
    source = AudioMuseSource(config, cache)
    rows = set(_rows(source, config))
    audio = set(_audio(config, cache))
    said = [f"{len(rows & audio)} tracks have both a row in AudioMuse-AI and audio"]
    if rows - audio:
        said.append(f"{len(rows - audio)} rows have no audio: {_some(rows - audio)}; they cannot be fetched")
    if audio - rows:
        said.append(
            f"{len(audio - rows)} files have no row: {_some(audio - rows)}; "
            "run an analysis in AudioMuse-AI to have them"
        )
    return said + [f"{count} {reason}" for reason, count in source.skipped.items()]


def _rows(source: AudioMuseSource, config: AudioMuseConfig) -> Iterator[str]:
    for track in source.tracks():
        if not isinstance(config.audio, FolderConfig):
            yield track.tags["provider_id"]
            continue
        stored = track.tags["file_path"]
        try:
            yield str(file_below(config.audio.path.resolve(), config.mounted_at, stored))
        except (BadAudio, OutOfReach):
            yield stored  # of another place: no file has this name


def _audio(config: AudioMuseConfig, cache: Path) -> Iterator[str]:
    in_folder = isinstance(config.audio, FolderConfig)
    for track in build_source(config.audio, cache).tracks():
        path = urlsplit(track.uri).path if in_folder else track.uri.rsplit("/", 1)[-1]
        yield unquote(path, errors="surrogateescape")


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{shown}, ..." if len(names) > 3 else shown
