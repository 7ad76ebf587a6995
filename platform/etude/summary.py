"""What jobs print at their end."""

import math
from pathlib import Path

from etude.data.prepare import PrepareReport
from etude.evaluation.metrics import shown
from etude.export.publish import Published

SHOWN = 20  # quarantine rows on the screen; all of them are in the store


def prepare_summary(report: PrepareReport, store: str) -> str:
    """Counts, and every track that was left out with its reason."""
    lines = [
        f"prepared {report.prepared} tracks, {report.found} were there, "
        f"{len(report.quarantined)} in quarantine, {len(report.unreachable)} out of reach (store: {store})"
    ]
    left_out = [("quarantine", row) for row in report.quarantined]
    left_out += [("out of reach", row) for row in report.unreachable]
    lines += [f"  {kind}: {row.uri}: {row.reason}" for kind, row in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"  and {len(left_out) - SHOWN} more")
    if report.unreachable:
        lines.append("  run the same command again to try those that were out of reach")
    return "\n".join(lines)


def student_summary(published: Published) -> str:
    """The figures of a student, each beside doing nothing."""
    test = published.test
    parity = min(p.min_cosine for p in published.parity.values())
    chance = f"({shown(test.overlap / test.overlap_chance, 1)} times chance, {shown(test.overlap_chance)})"
    if math.isnan(test.overlap):
        chance = "(too few held-out tracks to have neighbours)"
    constant, track_constant = shown(test.constant_cosine, 4), shown(test.track_constant_cosine, 4)
    return "\n".join(
        [
            f"on {test.n_tracks:.0f} held-out tracks ({test.n_segments:.0f} segments):",
            f"  skill                {shown(test.skill)}   (0 = best constant, 1 = the teacher)",
            f"  cosine               {shown(test.cosine, 4)}  (best constant {constant})",
            f"  cosine of tracks     {shown(test.track_cosine, 4)}  (best constant {track_constant})",
            f"  neighbour overlap    {shown(test.overlap)}   {chance}",
            f"  size                 {published.parameters / 1e6:.2f} M parameters, "
            f"{published.macs / 1e6:.0f} M multiply-adds for 10 s",
            f"  ONNX against PyTorch on real audio: least cosine {parity:.6f}",
            f"registered as {published.model.name} version {published.model.version}"
            + (", champion: " if published.champion else ", not champion: ")
            + published.verdict,
            f"ONNX, mel in:      {published.onnx}",
            f"ONNX, waveform in: {published.waveform_onnx}",
        ]
    )


def export_folder(home: Path, name: str) -> Path:
    """Where a student's files are put."""
    return home / "exports" / name
