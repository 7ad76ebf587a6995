"""Export a trained student from its checkpoint, without MLflow; and try it on something of your own.

    python jobs/export.py ~/.local/share/etude/runs/train-1a2b3c4d            its best checkpoint
    python jobs/export.py .../trials/003/epoch-0012.pt --out ~/student
    python jobs/export.py .../best.pt --int8               an 8-bit form too, if it measures faster and alike
    python jobs/export.py .../best.pt --test song.mp3      nearest tracks of the prepared library
    python jobs/export.py .../best.pt --test "slow piano"  nearest held-out queries of a text student

The checkpoint says how it was made; --home, --config FILE.yaml and other keys go before that. Put it first.
"""

import argparse
import sys
from pathlib import Path

from etude.cli import guarded, say
from etude.errors import UserError
from etude.export.audio import AudioRelease
from etude.export.int8 import offer_int8
from etude.export.rebuild import find_checkpoint, rebuild
from etude.export.release import export_checkpoint
from etude.export.text import TextRelease
from etude.inference.nearest import check_query, hear, nearest_queries, nearest_tracks
from etude.storage.files import split
from etude.tracking.git import git_commit


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("checkpoint", help="a checkpoint, or the folder of a run; both may be on s3://")
    parser.add_argument("--out", type=Path, help="folder for the files; without one, a folder below home")
    parser.add_argument("--int8", action="store_true", help="offer an 8-bit form of an audio student")
    parser.add_argument("--test", metavar="FILE_OR_TEXT", help="show what is nearest to it")
    chosen, options = parser.parse_known_args(argv)

    checkpoint = find_checkpoint(chosen.checkpoint)
    release = rebuild(checkpoint, options)
    audio = release.study if isinstance(release, AudioRelease) else None
    text = release.study if isinstance(release, TextRelease) else None
    if chosen.int8 and not audio:
        raise UserError("only an audio student has an 8-bit form: leave out --int8")
    if chosen.test is not None and not (audio or text):
        raise UserError("a music-text pair is tried with jobs/search.py: leave out --test")
    if chosen.test is not None and text:
        check_query(chosen.test, text)
    heard = hear(Path(chosen.test), audio) if audio and chosen.test is not None else None
    settings = release.study.settings
    run, name = split(checkpoint)
    made = settings.home / "exports" / settings.system / f"{run.name}-{name.removesuffix('.pt')}"
    folder = (chosen.out or made).expanduser().absolute()
    exported = export_checkpoint(release, checkpoint, folder, git_commit())
    say(exported.describe())
    if audio and chosen.int8:
        splits = audio.splits
        say(offer_int8(exported.files[0], splits.train, splits.test, folder / "README.md").describe())
    if audio and heard:
        say(nearest_tracks(heard, exported.files, audio).describe())
    if chosen.test is not None and text:
        say(nearest_queries(chosen.test, exported.files[0], text).describe())
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
