"""What a sweep shows at its end: a table, a plot beside its run, and the addresses where more is."""

import tempfile
from pathlib import Path

from etude.evaluation.report import sweep_plot
from etude.tracking.mlflow import Tracking
from etude.tuning.journal import Journal
from etude.tuning.sweep import SweepResult


def sweep_report(result: SweepResult, tracking: Tracking) -> str:
    """Plot the trials, keep the plot with the sweep's run, and return the table with the addresses."""
    journal = Journal(result.folder.address("journal.jsonl"))
    curves = {
        trial.number: [
            (entry.epoch, entry.score)
            for entry in journal.entries
            if entry.trial == trial.number and entry.score is not None
        ]
        for trial in result.trials
    }
    costs = {t.number: (float(t.macs), t.score) for t in result.trials if t.score is not None}
    with tempfile.TemporaryDirectory() as folder:
        plot = sweep_plot(curves, costs, result.winner.number, Path(folder) / "sweep.png")
        result.folder.write(plot.name, plot.read_bytes())
        result.folder.download("sweep.yaml", Path(folder) / "sweep.yaml")
        for file in (plot, Path(folder) / "sweep.yaml"):
            tracking.log_file(result.run_id, file)
    winner = result.winner
    best = {f"best_{winner.settings.judged_by}": winner.score or 0.0, "trials": float(len(result.trials))}
    tracking.log_metrics(result.run_id, best, step=0)
    tracking.tag(result.run_id, {"winner": f"{winner.number:03d}"})
    tracking.end(result.run_id, "FINISHED")
    runs = [result.trial_runs[trial.number] for trial in result.trials]
    return (
        f"\n{trials_table(result)}\n\n"
        f"winner: trial {result.winner.name} of {result.name}\n"
        f"MLflow, all trials compared: {tracking.compare_url(runs)}\n"
        f"MLflow, the sweep:           {tracking.run_url(result.run_id)}\n"
    )


def trials_table(result: SweepResult) -> str:
    """One line a trial, best first."""
    keys = sorted({key for trial in result.trials for key in trial.overrides})
    judged_by = result.winner.settings.judged_by
    header = ["trial", judged_by, "epochs", "ended", "params", "MMACs", *(key.split(".")[-1] for key in keys)]
    rows = [
        [
            trial.name,
            "-" if trial.score is None else f"{trial.score:.3f}",
            str(trial.epochs),
            trial.ended,
            f"{trial.parameters / 1e6:.2f}M",
            f"{trial.macs / 1e6:.0f}",
            *(str(trial.overrides.get(key, "")) for key in keys),
        ]
        for trial in result.trials
    ]
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in lines)
