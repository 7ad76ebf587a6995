"""An evaluation as files, a page and all figures and plots, and the same in MLflow."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.evaluation.library import Evaluation
from etude.evaluation.metrics import unit
from etude.evaluation.page import markdown
from etude.evaluation.report import Compared, held_out_plots, percentile_plot, query_plot
from etude.evaluation.retrieval import Answers, ranking
from etude.evaluation.speed import cores
from etude.tracking.git import git_commit
from etude.tracking.mlflow import Tracking


def write_report(evaluation: Evaluation) -> list[Path]:
    """Write `evaluations/<inputs.name>/` below the home folder; report.md is the first of the files."""
    inputs = evaluation.inputs
    folder = inputs.study.settings.home / "evaluations" / inputs.name
    folder.mkdir(parents=True, exist_ok=True)
    plots = _plots(evaluation, folder)
    report = folder / "report.md"
    report.write_text(markdown(evaluation, [path.name for path in plots if path.suffix == ".png"]), "utf-8")
    listing = folder / "report.json"
    listing.write_text(
        json.dumps(figures(evaluation), indent=1, ensure_ascii=False, allow_nan=False), "utf-8"
    )
    return [report, listing, *plots]


def keep(evaluation: Evaluation, files: Sequence[Path], tracking: Tracking) -> str:
    """Log figures and files in MLflow, and return the address of the run; a repetition has the same run."""
    inputs = evaluation.inputs
    name = f"evaluate-{inputs.name}"
    tags = {
        "etude.kind": "evaluate", "git_commit": git_commit(), "model": inputs.model.hash,
        "set": inputs.settings.set, "teacher": inputs.study.teacher.id, "data": inputs.study.data_hash,
    }  # fmt: skip
    run_id = tracking.run(name, name, tags=tags)
    own = inputs.settings.model_dump(include={"model", "set", "queries", "text_student"})
    tracking.log_params(run_id, inputs.study.settings.model_dump() | own)
    tracking.log_metrics(run_id, _flat(figures(evaluation)), step=0)
    for path in files:
        tracking.log_file(run_id, path, "evaluation")
    tracking.end(run_id, "FINISHED")
    return tracking.run_url(run_id)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Everything measured as plain values; a figure that could not be told is None."""
    inputs, found = evaluation.inputs, evaluation.answers
    told = ("parameters", "macs", "etude_version", "student", "data_hash")
    queries: dict[str, Any] = {"none": found} if isinstance(found, str) else {
        "ranked_by": inputs.texts if isinstance(inputs.texts, str) else inputs.texts.by,
        "mean": asdict(found.mean),
        "chance": asdict(found.chance),
        "each": {query: asdict(one) for query, one in zip(found.queries, found.each, strict=True)},
    }  # fmt: skip
    plain: dict[str, Any] = _plain({
        "model": {
            "file": inputs.model.path.name,
            "hash": inputs.model.hash,
            "bytes": inputs.model.path.stat().st_size,
            "waveform_bytes": inputs.model.waveform.stat().st_size if inputs.model.waveform else None,
            **{key: inputs.model.record.get(key) for key in told},
        },
        "set": {
            "name": inputs.settings.set,
            "tracks": len(inputs.dataset),
            "segments": inputs.dataset.n_segments,
            "teacher": inputs.study.teacher.id,
            "recipe": inputs.study.settings.recipe.id,
            "data_hash": inputs.study.data_hash,
        },
        "quality": asdict(evaluation.metrics),
        "distribution": asdict(evaluation.distribution),
        "neighbours": {k: {"overlap": o, "chance": c} for k, (o, c) in evaluation.neighbours.items()},
        "queries": queries,
        "speed": {"cores": cores(), **{f"{t.what}_{t.threads}": asdict(t) for t in evaluation.timings}},
    })  # fmt: skip
    return plain


def _plots(evaluation: Evaluation, folder: Path) -> list[Path]:
    titles = [f"{row.track.title} ({row.track.artist or 'unknown'})" for row in evaluation.inputs.dataset]
    student, teacher, track = evaluation.student_ND, evaluation.teacher_ND, evaluation.track_N
    files = held_out_plots(Compared(student, teacher, track, titles, "segments"), folder, "segments")
    cosines = {
        "segments": (unit(student) * unit(teacher)).sum(axis=1), "whole tracks": evaluation.track_cosine_T
    }  # fmt: skip
    files.append(percentile_plot(cosines, evaluation.metrics.constant_cosine, folder / "percentiles.png"))
    queries = folder / "queries.png"
    if isinstance(evaluation.answers, Answers):
        found = evaluation.answers
        places = _places(found.teacher_QT), _places(found.student_QT)
        overlaps = [one.overlap_10 for one in found.each]
        files.append(query_plot(found.queries, places, overlaps, found.chance.overlap_10, queries))
    else:
        queries.unlink(missing_ok=True)
    return files


def _places(score_QT: NDArray[np.float64]) -> NDArray[np.intp]:
    """Each track's place by query [q, t], from 1."""
    return np.stack([np.argsort(ranking(row)) + 1 for row in score_QT])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers by name for MLflow; single queries stay in the report."""
    flat: dict[str, float] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping) and key not in ("each", "student"):
            flat |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[prefix + key] = float(value)
    return flat
