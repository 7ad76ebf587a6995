"""What jobs print at their end."""

from etude.data.captions import CaptionReport
from etude.data.prepare import PrepareReport
from etude.experiments.base import Study
from etude.export.publish import Published
from etude.training.epoch import steps_and_parts

SHOWN = 20  # quarantine rows on the screen; all of them are in the store


def prepare_summary(report: PrepareReport, store: str) -> str:
    """Counts, and every track that was left out with its reason, or that one of several teachers left out."""
    lines = [
        f"prepared {report.prepared} tracks, {report.found} were there, "
        f"{len(report.quarantined)} in quarantine, {len(report.unreachable)} out of reach (store: {store})"
    ]
    left_out = [("quarantine", row) for row in report.quarantined]
    left_out += [("out of reach", row) for row in report.unreachable]
    left_out += [("in quarantine for another teacher", row) for row in report.also_quarantined]
    left_out += [("out of reach for another teacher", row) for row in report.also_unreachable]
    lines += [f"  {kind}: {row.uri}: {row.reason}" for kind, row in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"  and {len(left_out) - SHOWN} more")
    if report.unreachable or report.also_unreachable:
        lines.append("  run the same command again to try those that were out of reach")
    return "\n".join(lines)


def caption_summary(report: CaptionReport) -> str:
    """Counts, and every track that has no captions with its reason."""
    lines = [
        f"captions: made for {report.made} tracks, {report.found} had theirs, "
        f"{len(report.quarantined)} in quarantine"
        + (
            f"; {report.requests} requests, {report.spent_usd:.4f} US dollars in all"
            if report.requests
            else ""
        )
    ]
    lines += [f"  quarantine: {row.uri}: {row.reason}" for row in report.quarantined[:SHOWN]]
    if len(report.quarantined) > SHOWN:
        lines.append(f"  and {len(report.quarantined) - SHOWN} more")
    return "\n".join(lines)


def student_summary(published: Published, things: str = "tracks") -> str:
    """The figures of a student, each beside doing nothing; `things` is what it was tested on."""
    parity = min(p.min_cosine for p in published.parity.values())
    lines = published.test.lines(things)
    return "\n".join(
        [
            f"on {published.test.held_out(things)}:",
            *(f"  {line.name:20} {line.value:7} ({line.beside})" for line in lines),
            f"  size                 {published.cost.parameters / 1e6:.2f} M parameters, "
            f"{published.cost.macs / 1e6:.0f} M multiply-adds",
            f"  ONNX against PyTorch on real input: least cosine {parity:.6f}",
            f"registered as {published.model.name} version {published.model.version}"
            + (", champion: " if published.champion else ", not champion: ")
            + published.verdict,
            *(f"ONNX: {path}" for path in published.files),
        ]
    )


def training_plan(study: Study) -> str:
    """What training would do, for `--plan`."""
    config, cost = study.settings.training, study.settings.cost()
    steps, _ = steps_and_parts(study.training, config)
    return (
        f"{config.most_epochs} epochs of {steps} steps, a batch of {config.batch_size} each\n"
        f"a student of {cost.parameters / 1e6:.2f} M parameters, {cost.macs / 1e6:.0f} M multiply-adds"
    )
