"""Whether a folder holds the five emotion networks that a plug-in can run: seed 5's checks, and their gaps.

Upstream's checks look at the shape of the input only, and time the first calls too
(facts/projection_and_emotion.md, b).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from etude.emotion.models import FILES, Model
from etude.errors import UserError
from etude.export.check_emotion_onnx import Figures, running_issues, structure_issues
from etude.export.check_rtneural import rtneural_issues
from etude.export.emotion_network import read_network
from etude.students.emotion import EmotionNetwork
from etude.students.emotion_layers import PLANS

MOST_MB = 5.0  # 10^6 bytes, of one ONNX file and of all together: the seed's limit and its table's
MOST_MS = 10.0  # an inference: the seed's limit


@dataclass(frozen=True)
class Checked:
    """What was found out about one network."""

    model: Model
    figures: Figures
    issues: tuple[str, ...]

    @property
    def line(self) -> str:
        """The network in one line."""
        known, parts = self.figures, [f"{FILES[self.model]:18} {'FAILED' if self.issues else 'ok':6}"]
        if not math.isnan(known.mb):
            parts.append(f"{known.mb:.2f} MB")
        if not math.isnan(known.median_ms):
            parts.append(f"{known.median_ms:.3f} ms (99th percentile {known.p99_ms:.3f})")
            known_difference = not math.isnan(known.difference)
            parts.append(
                f"{known.difference:.1e} from PyTorch" if known_difference else "not compared with PyTorch"
            )
        return "  ".join(parts)


@dataclass(frozen=True)
class Validation:
    """All five networks, and what is wrong with them together."""

    models: tuple[Checked, ...]
    together: tuple[str, ...]

    @property
    def issues(self) -> list[str]:
        return [issue for checked in self.models for issue in checked.issues] + list(self.together)

    def report(self) -> dict[str, Any]:
        """Plain values for JSON, null for what could not be found out."""
        results = {
            FILES[checked.model]: {
                "passed": not checked.issues,
                **_without_nan(asdict(checked.figures)),
                "issues": list(checked.issues),
            }
            for checked in self.models
        }
        summary = {
            "passed": not self.issues,
            "models": len(self.models),
            "models_passed": sum(not checked.issues for checked in self.models),
            "total_mb": _total_mb(self.models),
        }
        return {"results": results, "issues": self.issues, "summary": summary}

    def write(self, path: Path) -> None:
        """Write the report as JSON. Raises UserError if the file cannot be written."""
        try:
            path.write_text(json.dumps(self.report(), indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise UserError(f"cannot write the report {path} ({error.strerror}): choose another") from None


def validate(folder: Path, checkpoints: Sequence[Path] = (), most_ms: float = MOST_MS) -> Validation:
    """Check the five ONNX files of a folder and the JSON beside them.

    They are compared with the networks in `checkpoints`, or else with the .safetensors beside the files;
    where there is neither, with nothing. A file at fault is an issue, never an exception. Raises UserError if
    there is no such folder, or if a checkpoint is of no use.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give the one that holds the exported files")
    networks: dict[Model, EmotionNetwork] = {}
    for path in checkpoints:
        model, network = read_network(path)
        if model in networks:
            raise UserError(f"{path} is a second checkpoint of the {model}: give one of each")
        networks[model] = network
    models = tuple(_check(model, folder, networks.get(model), most_ms) for model in FILES)
    total = _total_mb(models)
    too_large = f"the files have {total:.2f} MB together, less than {MOST_MB:g} MB is wanted"
    return Validation(models, (too_large,) if total >= MOST_MB else ())


def _check(model: Model, folder: Path, network: EmotionNetwork | None, most_ms: float) -> Checked:
    figures = Figures()
    return Checked(model, figures, tuple(_issues(model, folder, network, figures, most_ms)))


def _issues(
    model: Model, folder: Path, network: EmotionNetwork | None, figures: Figures, most_ms: float
) -> Iterator[str]:
    path, plan = folder / f"{FILES[model]}.onnx", PLANS[model, "dense"]  # in and out are the same in both
    weights = path.with_suffix(".safetensors")
    if network is None and weights.exists():
        try:
            stored, beside = read_network(weights)
        except UserError as error:
            yield str(error)
        else:
            network = beside if stored == model else None
            if stored != model:
                yield f"{weights.name} holds the {stored}, not the {model}: export both again"
    yield from rtneural_issues(path.with_suffix(".json"), plan, network)
    if not path.is_file():
        yield f"{path.name} is missing: export the network"
        return
    figures.mb = path.stat().st_size / 1e6
    if figures.mb >= MOST_MB:
        yield f"{path.name} has {figures.mb:.2f} MB, less than {MOST_MB:g} MB is wanted"
    faults = list(structure_issues(path, plan))
    yield from faults or running_issues(path, plan, network, figures, most_ms)


def _total_mb(models: Sequence[Checked]) -> float:
    return sum(checked.figures.mb for checked in models if not math.isnan(checked.figures.mb))


def _without_nan(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in figures.items()}
