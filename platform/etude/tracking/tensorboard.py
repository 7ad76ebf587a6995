"""A run's figures as TensorBoard reads them, beside MLflow."""

from collections.abc import Mapping
from pathlib import Path

from etude.tracking import NO_FIGURES


def write_scalars(folder: Path, metrics: Mapping[str, float], step: int) -> None:
    """Add the figures of one epoch to the run that `folder` is; they are on disk when this returns."""
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    with SummaryWriter(str(folder)) as writer:
        for name, value in metrics.items():
            if name in NO_FIGURES:
                continue
            writer.add_scalar(name, value, step)
