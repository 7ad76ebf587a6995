"""From a best checkpoint to a registered model: export, registry, champion."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.evaluation.figures import Figures
from etude.export.onnx import read_metadata
from etude.export.parity import Parity
from etude.export.release import Release, export_checkpoint
from etude.students.cost import Cost
from etude.tracking.mlflow import EXPORT, ModelVersion, Tracking


@dataclass(frozen=True)
class Published:
    """What became of a student."""

    folder: Path
    files: tuple[Path, ...]
    validation: Figures
    test: Figures
    parity: dict[str, Parity]
    cost: Cost
    model: ModelVersion
    champion: bool
    verdict: str  # why it is champion, or is not


def publish(
    release: Release,
    checkpoint: str | Path,
    tracking: Tracking,
    run_id: str,
    folder: Path,
    tags: Mapping[str, str],
) -> Published:
    """Evaluate the checkpoint on the test set, export it, register it, and let it challenge the champion.

    Raises UserError if the export does not agree with PyTorch; nothing is registered then.
    """
    done = export_checkpoint(release, checkpoint, folder, tags.get("git_commit", "unknown"))
    for path in (*done.beside, *done.files[1:]):
        tracking.log_file(run_id, path, EXPORT)
    figures = done.validation.as_dict("validation_best") | done.test.as_dict("test")
    figures |= {f"parity/{form}_min_cosine": p.min_cosine for form, p in done.parity.items()}
    figures |= {"parameters": float(done.cost.parameters), "macs": float(done.cost.macs)}
    tracking.log_metrics(run_id, figures, step=0)
    judged_by = release.study.settings.judged_by
    model_tags = {
        **tags,
        **{key: str(done.record[key]) for key in release.comparable},
        "data": release.study.data_hash,
        f"validation_{judged_by}": f"{done.validation.score:.4f}",
        f"test_{judged_by}": f"{done.test.score:.4f}",
    }
    reigning = tracking.champion(done.name)
    model = tracking.register(run_id, done.files[0], done.name, model_tags)
    if model == reigning:  # exported again
        champion, verdict = True, "it has been"
    else:
        champion, verdict = _challenge(tracking, reigning, done.validation, release, done.record)
    if champion:
        tracking.crown(model)
    return Published(
        folder, done.files, done.validation, done.test, done.parity, done.cost, model, champion, verdict
    )


def _challenge(
    tracking: Tracking,
    reigning: ModelVersion | None,
    challenger: Figures,
    release: Release,
    record: Mapping[str, Any],
) -> tuple[bool, str]:
    """Whether the new model takes over, judged on the same validation data, and why."""
    if reigning is None:
        return True, "it is the first"
    with tempfile.TemporaryDirectory() as folder:
        files = tracking.download(reigning, Path(folder))
        theirs = read_metadata(files[0])
        for key in release.comparable:
            if theirs.get(key) != record[key]:
                return False, (
                    f"champion version {reigning.version} has another {key} ({theirs.get(key)}), "
                    "so the two cannot be compared; move the alias in MLflow if this one is wanted"
                )
        try:
            score = release.score(files).score
        except UserError as error:  # what is held out may be too long for it
            return False, (
                f"champion version {reigning.version} cannot be judged here ({error}); move the alias in "
                "MLflow if this one is wanted"
            )
    figure = f"validation {release.study.settings.judged_by}"
    if math.isnan(score) or challenger.score > score:
        return True, f"its {figure} {challenger.score:.3f} beats version {reigning.version}'s {score:.3f}"
    return (
        False,
        f"champion version {reigning.version} has {figure} {score:.3f}, this one {challenger.score:.3f}",
    )
