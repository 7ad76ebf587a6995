"""From a best checkpoint to files of whose agreement one can be sure: test, export, gate, card."""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from etude import __version__
from etude.config import save
from etude.errors import UserError
from etude.evaluation.figures import Figures
from etude.experiments.base import Study
from etude.export.card import Card
from etude.export.onnx import export_onnx, int8_of, write_metadata
from etude.export.parity import Parity
from etude.students.cost import Cost
from etude.training.checkpoint import load_checkpoint


class Release(Protocol):
    """What an export must know of one system beyond training it; the first file is the one registered."""

    @property
    def study(self) -> Study: ...

    def record(self) -> dict[str, Any]:
        """What the files say of how they were made, `teacher` and what else makes two files comparable."""
        ...

    @property
    def comparable(self) -> tuple[str, ...]:
        """Keys of the record that two files must share for a fair comparison."""
        ...

    def check(self, system: Any, files: Sequence[Path]) -> dict[str, Parity]:
        """Run the files over real input beside PyTorch. Raises UserError if they do not agree."""
        ...

    def score(self, files: Sequence[Path]) -> Figures:
        """The figures of a student's files on the validation data, the one registered first."""
        ...

    def card(self) -> Card:
        """What a reader should know of the files."""
        ...

    def plots(self, system: Any, folder: Path) -> list[Path]:
        """Draw how well the held-out data is met."""
        ...


@dataclass(frozen=True)
class Exported:
    """A student's files, and what is known of them."""

    name: str  # of the model
    folder: Path
    files: tuple[Path, ...]
    beside: tuple[Path, ...]  # card, configuration, plots
    validation: Figures
    test: Figures
    parity: dict[str, Parity]
    cost: Cost
    record: dict[str, Any]  # what stands inside the files

    def describe(self) -> str:
        """The files, how good the student is, and how well they agree with PyTorch."""
        figures = ", ".join(f"{line.name} {line.value}" for line in self.test.lines("items")[:2])
        lines = [
            f"{self.name}: {figures} on {self.test.held_out('items')}",
        ]
        lines += [
            f"{form} against PyTorch on {p.n} real inputs: least cosine {p.min_cosine:.6f}, largest "
            f"difference {p.max_difference:.1e}"
            for form, p in self.parity.items()
        ]
        return "\n".join([*lines, *(f"ONNX: {path}" for path in self.files)])


def weights_id(state: Mapping[str, Tensor]) -> str:
    """Sixteen digits that change with the weights: files that share them give vectors of one space."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def export_checkpoint(release: Release, checkpoint: str | Path, folder: Path, git_commit: str) -> Exported:
    """Evaluate the checkpoint on the test set and export it, with its card and its configuration beside it.

    Raises UserError if the files do not agree with PyTorch; none is in the folder then.
    """
    study, name = release.study, f"etude-{release.study.settings.published_as}"
    state = load_checkpoint(checkpoint)["model"]
    system: Any = study.system(0, state)
    system.eval()
    batch_size = study.settings.training.batch_size
    validation = system.evaluate(study.validation, batch_size)
    test = system.evaluate(study.test, batch_size)
    cost = study.settings.cost(state)
    record: dict[str, Any] = {
        "etude_version": __version__,
        **release.record(),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "space_id": weights_id(state),
        "data_hash": study.data_hash,
        "git_commit": git_commit,
        "test": dataclasses.asdict(test),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot use {folder} for the files: {error.strerror}; choose another") from None
    with tempfile.TemporaryDirectory(dir=folder) as unchecked:
        made = [export_onnx(spec, Path(unchecked)) for spec in system.exports()]
        parity = release.check(system, made)
        record["parity"] = {form: dataclasses.asdict(p) for form, p in parity.items()}
        for path in made:
            write_metadata(path, record)
        card, configuration = Path(unchecked, "README.md"), Path(unchecked, "config.yaml")
        card.write_text(release.card().text(name, record, test, parity))
        save(study.settings, configuration)
        others = (card, configuration, *release.plots(system, Path(unchecked)))
        for path in (*made, *others):  # nothing is in the folder before all could be written
            os.replace(path, folder / path.name)
    files, beside = (tuple(folder / path.name for path in paths) for paths in (made, others))
    for path in files:
        int8_of(path).unlink(missing_ok=True)  # it was of the file that was here
    return Exported(name, folder, files, beside, validation, test, parity, cost, record)
