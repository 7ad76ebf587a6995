"""From a best checkpoint to a registered model: test, export, gate, card, registry, champion."""

import asyncio
import dataclasses
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from etude import __version__
from etude.config import save
from etude.data.batches import Dataset, Splits, all_batches
from etude.errors import BadAudio, UserError
from etude.evaluation.metrics import Metrics
from etude.evaluation.report import student_plots
from etude.experiment import Experiment, build_system, load_teacher
from etude.export.card import card, licenses
from etude.export.onnx import export_onnx, read_metadata, run_onnx, session, write_metadata
from etude.export.parity import Parity, RealAudio, check_parity, real_audio
from etude.sources import Track, build_source
from etude.students.cost import count
from etude.systems.student_clap import compare
from etude.tracking.mlflow import ModelVersion, Tracking
from etude.training.checkpoint import load_checkpoint

GATE_TRACKS = 6  # held-out tracks whose audio goes through the gate
MODEL_NAME = "etude-student-clap"


@dataclass(frozen=True)
class Published:
    """What became of a student."""

    folder: Path
    onnx: Path
    waveform_onnx: Path
    validation: Metrics
    test: Metrics
    parity: dict[str, Parity]
    parameters: int
    macs: int
    model: ModelVersion
    champion: bool
    verdict: str  # why it is champion, or is not


def publish(
    settings: Experiment,
    splits: Splits,
    checkpoint: Path,
    tracking: Tracking,
    run_id: str,
    folder: Path,
    tags: Mapping[str, str],
) -> Published:
    """Evaluate the checkpoint on the test set, export it, register it, and let it challenge the champion.

    Raises UserError if the export does not agree with PyTorch; nothing is registered then.
    """
    teacher = load_teacher(settings)
    system = build_system(settings, teacher, seed=0)
    system.load_state_dict(load_checkpoint(checkpoint)["model"])
    system.eval()
    validation = system.evaluate(splits.validation, settings.training.batch_size)
    test = system.evaluate(splits.test, settings.training.batch_size)
    cost = count(system.student, settings.recipe.n_mels, settings.recipe.n_frames)
    metadata: dict[str, object] = {
        "etude_version": __version__,
        "recipe": settings.recipe.model_dump(),
        "recipe_id": settings.recipe.id,
        "teacher": teacher.id,
        "teacher_license": teacher.license,
        "normalized": teacher.normalized,
        "student": settings.student.model_dump(),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "data_hash": splits.data_hash,
        "data_licenses": licenses(splits),
        "git_commit": tags.get("git_commit", "unknown"),
        "test": dataclasses.asdict(test),
    }
    audio = gate_audio(settings, splits)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unchecked:
        files = [export_onnx(spec, Path(unchecked)) for spec in system.exports()]
        parity = check_parity(system.student, files[0], files[1], audio)
        metadata["parity"] = {name: dataclasses.asdict(p) for name, p in parity.items()}
        for path in files:
            write_metadata(path, metadata)
            os.replace(path, folder / path.name)
    mel_path, waveform_path = (folder / path.name for path in files)

    (folder / "README.md").write_text(card(MODEL_NAME, metadata, test, parity, splits))
    save(settings, folder / "config.yaml")
    plots = student_plots(system, splits.test, settings.training.batch_size, folder)
    for path in (folder / "README.md", folder / "config.yaml", waveform_path, *plots):
        tracking.log_file(run_id, path, "export")
    figures = validation.as_dict("validation_best") | test.as_dict("test")
    figures |= {f"parity/{name}_min_cosine": p.min_cosine for name, p in parity.items()}
    figures |= {"parameters": float(cost.parameters), "macs": float(cost.macs)}
    tracking.log_metrics(run_id, figures, step=0)
    model_tags = {
        **tags,
        "recipe": settings.recipe.id,
        "teacher": teacher.id,
        "data": splits.data_hash,
        "validation_skill": f"{validation.skill:.4f}",
        "test_skill": f"{test.skill:.4f}",
    }
    reigning = tracking.champion(MODEL_NAME)
    model = tracking.register(run_id, mel_path, MODEL_NAME, model_tags)
    champion, verdict = _challenge(tracking, reigning, validation, splits.validation, metadata)
    if champion:
        tracking.crown(model)
    return Published(
        folder=folder,
        onnx=mel_path,
        waveform_onnx=waveform_path,
        validation=validation,
        test=test,
        parity=parity,
        parameters=cost.parameters,
        macs=cost.macs,
        model=model,
        champion=champion,
        verdict=verdict,
    )


def gate_audio(settings: Experiment, splits: Splits) -> RealAudio:
    """Original files of held-out tracks, for the gate. Raises UserError if none is in reach."""
    return asyncio.run(_gate_audio(settings, [row.track for row in (*splits.test, *splits.validation)]))


async def _gate_audio(settings: Experiment, tracks: list[Track]) -> RealAudio:
    source = build_source(settings.source, settings.cache)
    files, reason = [], ""
    for track in tracks:
        try:
            files.append(real_audio(await source.fetch(track), settings.recipe))
        except (OSError, BadAudio) as error:
            reason = f"{track.uri}: {error}"
        if len(files) == GATE_TRACKS:
            break
    await source.aclose()
    if not files:
        raise UserError(f"the export cannot be checked, no held-out track can be fetched ({reason})")
    return RealAudio(np.concatenate([f.waveforms for f in files]), np.concatenate([f.mels for f in files]))


def _challenge(
    tracking: Tracking,
    reigning: ModelVersion | None,
    challenger: Metrics,
    validation: Dataset,
    metadata: Mapping[str, object],
) -> tuple[bool, str]:
    """Whether the new model takes over, judged on the same validation data, and why."""
    if reigning is None:
        return True, "it is the first"
    with tempfile.TemporaryDirectory() as folder:
        path = tracking.download(reigning, Path(folder))
        record = read_metadata(path)
        for key in ("recipe_id", "teacher"):
            if record.get(key) != metadata[key]:
                return False, (
                    f"champion version {reigning.version} has another {key} ({record.get(key)}), "
                    "so the two cannot be compared; move the alias in MLflow if this one is wanted"
                )
        score = _score_onnx(path, validation).skill
    if math.isnan(score) or challenger.skill > score:
        return (
            True,
            f"its validation skill {challenger.skill:.3f} beats version {reigning.version}'s {score:.3f}",
        )
    return (
        False,
        f"champion version {reigning.version} has validation skill {score:.3f}, "
        f"this one {challenger.skill:.3f}",
    )


def _score_onnx(path: Path, dataset: Dataset) -> Metrics:
    opened = session(path)
    vectors, tracks = [], []
    for batch in all_batches(dataset, 16):
        vectors.append(run_onnx(opened, batch.mel.numpy()[:, None], 16))
        tracks.append(batch.track.numpy())
    return compare(np.concatenate(vectors), np.concatenate(tracks), dataset)
