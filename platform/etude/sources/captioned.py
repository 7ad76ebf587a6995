"""A folder of audio with captions that came with it, as a source.

Beside the audio, however deep, lies `captions.jsonl` with one JSON object a line:

    {"file": "a/b.flac", "captions": ["A slow piano piece in a hall.", "Solo piano, hesitant and quiet."]}
    {"file": "c.mp3", "caption": "...", "title": "...", "artist": "...", "license": "CC0",
     "clip": "the recording that this is an excerpt or an altered copy of", "held_out": true}

Files of one `clip` stay in one of the training, validation and test sets; if some are `held_out`, those are
the test set. Several lines may describe one file.
"""

import os
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal

from etude.errors import UserError
from etude.sources.captions import own_captions
from etude.sources.described import Described, DescribedSource, PassedOver, held_out, objects_of
from etude.sources.folder import LocalFolder, path_hash, printable
from etude.sources.listing import text_of

FILE = "captions.jsonl"
LINE = '{"file": "a/b.flac", "captions": ["A slow piano piece in a hall."]}'


class CaptionedConfig(LocalFolder):
    """Settings of a folder of audio with captions."""

    name: Literal["captioned"] = "captioned"


class CaptionedSource(DescribedSource):
    """The files that `captions.jsonl` names; their tags say what its lines do not."""

    def __init__(self, config: CaptionedConfig) -> None:
        super().__init__("captioned", config.path, config.path)

    @property
    def id(self) -> str:
        """`captioned-` and a hash of the folder's full path."""
        return f"captioned-{path_hash(self._root)}"

    def described(self, passed_over: PassedOver) -> Iterator[Described]:
        """What the lines say. Raises UserError if there is no `captions.jsonl`, or it cannot be read."""
        path = self._root / FILE
        if not os.path.exists(path):
            raise UserError(
                f"there is no {printable(path)}: write one line for each audio file into it, such as {LINE}"
            )
        seen: set[PurePosixPath] = set()
        for where, row in objects_of(path, passed_over):
            one = _described(row, where, passed_over)
            if one is None:
                continue
            if (file := PurePosixPath(one.file)) in seen:
                passed_over.add("lines about a file that another line describes, put together", one.file)
            seen.add(file)
            yield one


def _described(row: dict[str, Any], where: str, passed_over: PassedOver) -> Described | None:
    file = row.get("file")
    if not isinstance(file, str) or not file:
        passed_over.add("lines without a file", where)
        return None
    several = row.get("captions")
    captions = [*(several if isinstance(several, list) else [several]), row.get("caption")]
    return Described(
        file,
        own_captions(captions),
        title=text_of(row, "title"),
        artist=text_of(row, "artist"),
        clip=text_of(row, "clip"),
        held_out=held_out(row, "held_out", file, passed_over),
        license=text_of(row, "license"),
    )
