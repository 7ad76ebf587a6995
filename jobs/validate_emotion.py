"""Check the five exported emotion networks before a plug-in loads them.

    python jobs/validate_emotion.py                                the newest of each
    python jobs/validate_emotion.py --models-dir FOLDER --output report.json
    python jobs/validate_emotion.py --models-dir FOLDER --checkpoint .../best.pt --checkpoint .../best.pt

Structure, names and shapes, ranges also for extreme inputs, time, size, and agreement with PyTorch: with the
checkpoints that are given, or else with the .safetensors beside the files. Ends with 1 if anything is wrong.
"""

import argparse
import sys
from pathlib import Path

from etude.cli import guarded, say
from etude.config import default_home
from etude.export.emotion import MODELS
from etude.export.validate_emotion import MOST_MS, validate


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--models-dir",
        type=Path,
        default=default_home() / "exports" / "emotion" / MODELS,
        help="folder with the .onnx and .json files (%(default)s)",
    )
    parser.add_argument(
        "--checkpoint", type=Path, action="append", default=[], help="a run's best.pt; once for each network"
    )
    parser.add_argument("--output", type=Path, help="write a report as JSON")
    parser.add_argument(
        "--most-ms", type=float, default=MOST_MS, help="limit of an inference (%(default)g ms)"
    )
    chosen = parser.parse_args(argv)
    found = validate(chosen.models_dir, chosen.checkpoint, chosen.most_ms)
    for model in found.models:
        say(model.line)
    for issue in found.issues:
        say(f"- {issue}")
    if chosen.output:
        found.write(chosen.output)
        say(f"report: {chosen.output}")
    if found.issues:
        n = len(found.issues)
        say(f"{n} thing{'s' if n > 1 else ''} wrong: mend what is told above, export and validate again")
        return 1
    lacking = [model.line.split()[0] for model in found.models if "not compared" in model.line]
    if lacking:
        say(f"the files are sound, but nothing to compare them with was there: {', '.join(lacking)}")
        return 0
    say("all is well: the files are ready for the plug-in")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
