"""MusicBench as a source: 10 s clips of MusicCaps, altered copies of them, and several captions of each.

Melechovsky et al., "Mustango: Toward Controllable Text-to-Music Generation", arXiv:2311.08355. The layout is
that of the dataset amaai-lab/MusicBench as facts/projection_and_emotion.md has it; the set itself was never
at hand here.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field, field_validator

from etude.errors import UserError
from etude.sources.captions import own_captions
from etude.sources.described import Described, DescribedSource, PassedOver, held_out, objects_of
from etude.sources.folder import LocalFolder, path_hash, printable

TRAIN = "MusicBench_train.json"
TESTS = ("MusicBench_test_A.json", "MusicBench_test_B.json")  # the same recordings, captioned twice
AUDIO = "datashare"
EVAL = "is_audioset_eval_mcaps"
LICENSE = "CC-BY-SA-3.0"
CaptionField = Literal[
    "main_caption", "alt_caption", "prompt_aug", "prompt_ch", "prompt_bt", "prompt_bpm", "prompt_key"
]
WHOLE: tuple[CaptionField, ...] = (
    "main_caption",
    "alt_caption",
)  # the others are sentences
# MusicCaps names a clip by the eleven characters of its YouTube id, two of which may be marks themselves.
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}(?![A-Za-z0-9])")


class MusicBenchConfig(LocalFolder):
    """Settings of MusicBench: `path` holds its three JSON files and the extracted folder `datashare`."""

    name: Literal["musicbench"] = "musicbench"
    captions: tuple[CaptionField, ...] = Field(
        WHOLE, description="fields; the sentences of prompt_... are added to the main caption"
    )
    hold_out_eval: bool = Field(
        True, description="hold out the clips that MusicCaps marks as AudioSet's evaluation set too"
    )

    @field_validator("captions")
    @classmethod
    def _some(cls, captions: tuple[CaptionField, ...]) -> tuple[CaptionField, ...]:
        if not any(name in WHOLE for name in captions):
            raise ValueError("name main_caption, alt_caption or both")
        if "main_caption" not in captions and any(name not in WHOLE for name in captions):
            raise ValueError("the sentences of prompt_... are added to main_caption: name it too")
        return captions


class MusicBenchSource(DescribedSource):
    """The clips that are there, each once with its captions; those of both tests are held out."""

    def __init__(self, config: MusicBenchConfig) -> None:
        super().__init__("musicbench", config.path, config.path / AUDIO)
        self._config = config

    @property
    def id(self) -> str:
        """`musicbench-` and a hash of the folder's full path and the settings."""
        settings = (*self._config.captions, str(self._config.hold_out_eval))
        return f"musicbench-{path_hash(self._root, *settings)}"

    def described(self, passed_over: PassedOver) -> Iterator[Described]:
        """What the three files say. Raises UserError if one of them, or the audio, is missing."""
        for name in (TRAIN, *TESTS, AUDIO):
            if not os.path.exists(self._root / name):
                raise UserError(self._how_to_get(name))
        for name in (TRAIN, *TESTS):
            for where, row in objects_of(self._root / name, passed_over):
                one = self._described(row, where, name in TESTS, passed_over)
                if one is not None:
                    yield one

    def _described(
        self, row: Mapping[str, Any], where: str, test: bool, passed_over: PassedOver
    ) -> Described | None:
        file = row.get("location")
        if not isinstance(file, str) or not file:
            passed_over.add("entries without a location", where)
            return None
        if not _YOUTUBE_ID.match(PurePosixPath(file).name):
            passed_over.add("names that do not begin with a YouTube id, each its own clip", file)
        in_eval = self._config.hold_out_eval and held_out(row, EVAL, file, passed_over)
        captions = captions_of(row, self._config.captions)
        return Described(file, captions, clip=clip_of(file), held_out=test or in_eval, license=LICENSE)

    def _how_to_get(self, lacking: str) -> str:
        folder = printable(self._root)
        return (
            f"there is no {lacking} in {folder}: put {TRAIN}, {' and '.join(TESTS)} of the dataset "
            f"amaai-lab/MusicBench there (hf download amaai-lab/MusicBench --repo-type dataset --local-dir "
            f"{folder}), and extract its MusicBench.tar.gz, which makes the folder {AUDIO} (tar -xzf "
            "MusicBench.tar.gz)"
        )


def captions_of(row: Mapping[str, Any], fields: Sequence[CaptionField]) -> tuple[str, ...]:
    """The captions in these fields of an entry.

    Of the sentences those are added that the main caption does not hold already, as that of test B does.
    """
    said = {name: next(iter(own_captions([row.get(name)])), "") for name in fields}
    if main := said.get("main_caption"):
        sentences = [said[name] for name in said if name not in WHOLE]
        new = [sentence for sentence in sentences if sentence.casefold() not in main.casefold()]
        said["main_caption"] = " ".join([main, *new])
    return own_captions(said[name] for name in said if name in WHOLE)


def clip_of(location: str) -> str:
    """The clip of MusicCaps that a file holds, or an altered copy of.

    A name is assumed to begin with the clip's YouTube id, eleven letters, figures, `-` and `_`, and to go on,
    if at all, with something else than a letter or a figure: `-0SdAVK79lg.wav` and `-0SdAVK79lg_3.wav` are of
    one clip, whatever folders they lie in. Of another name all but its ending is the clip, so that its copies
    are not known to be copies; a listing counts these.
    """
    path = PurePosixPath(location)
    found = _YOUTUBE_ID.match(path.name)
    return found[0] if found else path.stem
