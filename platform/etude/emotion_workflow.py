"""What the emotion jobs share before they train: pieces prepared, and written as seed 5's files."""

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from etude.cli import Progress, say
from etude.data.emotion import json_lines
from etude.data.emotion_synthetic import write_synthetic
from etude.data.prepare_emotion import EmotionJob, EmotionReport, plan_emotion, prepare_emotion
from etude.emotion.thesaurus import thesaurus
from etude.emotion.thesaurus_json import write_thesaurus
from etude.errors import UserError
from etude.experiments.emotion import EmotionExperiment
from etude.services.session import connect
from etude.summary import SHOWN

FILES = {"train": "train.json", "validation": "val.json", "test": "test.json"}


class PiecesSettings(EmotionExperiment):
    """What every emotion job can be told about its pieces."""

    output: Path | None = Field(
        None, description="a folder for train.json, val.json, test.json and thesaurus.json; usually emotion/"
    )
    retry_quarantined: bool = Field(False, description="try the pieces in quarantine again")

    @model_validator(mode="before")
    @classmethod
    def _one_of_two(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("source") and data.get("num_samples") is not None:
            raise ValueError("num_samples makes pieces up, in place of a source's: leave one of the two out")
        return data


class PrepareEmotion(PiecesSettings):
    """Prepare pieces for the emotion models. Files: --config FILE.yaml."""

    plan: bool = False


def emotion_plan(settings: PiecesSettings) -> str:
    """What preparing would do, for `--plan`."""
    if settings.num_samples is not None:
        return f"make up {settings.num_samples} pieces, which are no music"
    planned = plan_emotion(_job(settings))
    lines = [
        f"{len(planned.pieces)} pieces, {len(planned.missing)} to prepare, "
        f"{len(planned.quarantined)} in quarantine"
    ]
    return "\n".join([*lines, *(f"  left out, {line}" for line in planned.passed_over)])


def prepare_pieces(settings: PiecesSettings) -> None:
    """Prepare what is missing, say what became of it, and write the files of the three sets."""
    if settings.num_samples is not None:
        connect(settings.home)
        write_synthetic(settings.store, settings.source_id, settings.analysis, settings.num_samples)
        say(f"made up {settings.num_samples} pieces: what is learned from them says nothing of music")
    else:
        planned = plan_emotion(_job(settings))
        connect(settings.home)
        report = prepare_emotion(_job(settings), Progress("prepare"), planned)
        say(_summary(report))
    say(f"train.json, val.json, test.json, thesaurus.json: {_write_files(settings)}")


def _job(settings: PiecesSettings) -> EmotionJob:
    return EmotionJob(
        settings.store.root, settings.cache, settings.source, settings.analysis, settings.retry_quarantined
    )


def _summary(report: EmotionReport) -> str:
    lines = [
        f"prepared {report.prepared} pieces, {report.found} were there, {len(report.quarantined)} in "
        f"quarantine, {len(report.unreachable)} out of reach"
    ]
    left_out = [("quarantine", row) for row in report.quarantined]
    left_out += [("out of reach", row) for row in report.unreachable]
    lines += [f"  {kind}: {row.uri}: {row.reason}" for kind, row in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"  and {len(left_out) - SHOWN} more")
    return "\n".join([*lines, *(f"  left out, {line}" for line in report.passed_over)])


def _write_files(settings: PiecesSettings) -> Path:
    folder = settings.output or settings.home / "emotion"
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in settings.sets().items():
            _write(folder / FILES[name], json_lines(rows))
        write_thesaurus(thesaurus(), folder / "thesaurus.json")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; name another --output") from None
    return folder


def _write(path: Path, lines: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
