"""Embed a library with an exported student: to Parquet, or back into AudioMuse-AI's database.

    python jobs/embed_library.py --model student_waveform.onnx --source.name folder --source.path ~/Music
    python jobs/embed_library.py --model student_waveform.onnx --to audiomuse    and --write after a look
    python jobs/embed_library.py --rollback                                      undo the latest --write

A rerun embeds only what is missing in --out. All keys: --help.
"""

import sys

from etude.cli import Progress, guarded, say
from etude.config import load
from etude.inference.library import Limits, embed_library, library_plan
from etude.inference.settings import EmbedLibrary
from etude.inference.student import Student
from etude.inference.vectors import VectorFolder
from etude.inference.write_back import check_target, database_of, plan_write, rollback, write
from etude.sources import build_source, requests_at_a_time


def main(argv: list[str]) -> int:
    settings = load(EmbedLibrary, argv)
    if settings.rollback:
        say(rollback(database_of(settings.dsn, settings.source), settings.table).describe())
        return 0
    prepare = settings.prepare
    student = Student(settings.model, prepare.min_duration_s, prepare.silence_dbfs)
    back = database_of(settings.dsn, settings.source) if settings.to == "audiomuse" else None
    if back:
        check_target(back, settings.table, student.dim)
    source = build_source(settings.source, settings.cache)
    tracks = list(source.tracks())
    out = settings.out or settings.home / "vectors" / f"{source.id}-{student.hash}"
    folder = VectorFolder(out, student.hash, student.dim)
    if settings.plan:
        say(library_plan(tracks, folder))
        return 0
    under_way = requests_at_a_time(settings.source) or prepare.fetch_concurrency
    limits = Limits(prepare.fetch_attempts, under_way)
    report = embed_library(source, tracks, student, folder, limits, Progress("embed"))
    say(f"{report.describe()}\nvectors: {folder.path}")
    if back:
        put = write if settings.write else plan_write
        say(put(back, settings.table, folder, tracks).describe())
    return 0 if report.embedded + report.found else 1


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
