"""What speaks for one or the other origin of stored vectors: dates, lengths, and a model run again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from pydantic import SecretStr

from etude.audio.decode import decode
from etude.audio.mel import log_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.waveform import prepare_waveform
from etude.errors import BadAudio, UserError
from etude.sources.audiomuse_schema import connected, place_of, read_schema
from etude.sources.base import Source, Track
from etude.teachers.clap import RECIPE, check_clap, open_clap, segment_vectors, track_vector
from etude.teachers.onnx_file import OnnxFile
from etude.teachers.stored import DIMS, UNIT, StoredTeacher, Table, read_vector

SAMPLE = 2000  # vectors whose lengths are looked at
STUDENT_SINCE = "2026-03-10"  # AudioMuse-AI 0.9.0 writes the vectors of a student
# CLAP's own front end, and with the frames closer together as AudioMuse-AI had them until then
# (facts/audiomuse.md, b).
CLAP_RECIPES = {
    f"{hop} samples between frames": RECIPE.model_copy(update={"hop_length": hop}) for hop in (480, 320)
}


def evidence(dsn: SecretStr) -> list[str]:
    """What the database itself tells of its vectors, as sentences. Raises UserError if it cannot be read."""
    place = place_of(dsn)
    said = []
    with connected(dsn) as connection:
        schema = read_schema(connection, place)
        schema.require("score")
        for name, dim in DIMS.items():
            if name not in schema.columns:
                said.append(f"{name}: there is no such table, or no right to read it")
                continue
            table = sql.Identifier(name)
            counted = connection.execute(
                sql.SQL("SELECT count(*) AS rows, count(embedding) AS vectors FROM {}").format(table)
            ).fetchone()
            sample = connection.execute(
                sql.SQL(
                    "SELECT embedding FROM {} WHERE embedding IS NOT NULL ORDER BY md5(item_id) LIMIT %s"
                ).format(table),
                [SAMPLE],
            ).fetchall()
            assert counted is not None
            said.append(f"{name}: {counted['rows']} rows, {counted['vectors']} with a vector")
            said += _lengths(name, [row["embedding"] for row in sample], dim)
        if "created_at" in schema.columns["score"]:
            dates = connection.execute(
                "SELECT min(created_at)::date AS first, max(created_at)::date AS last, "
                "count(*) FILTER (WHERE created_at < %s) AS before, count(*) AS n FROM score",
                [STUDENT_SINCE],
            ).fetchone()
            assert dates is not None
            said.append(
                f"dates: first analysed between {dates['first']} and {dates['last']}, {dates['before']} of "
                f"{dates['n']} before {STUDENT_SINCE}, when AudioMuse-AI began to write the vectors of a "
                "student (clap_student); a later analysis of the same track keeps its date"
            )
        else:
            said.append("dates: this schema has none")
    return said


def _lengths(name: Table, stored: Sequence[bytes], dim: int) -> list[str]:
    norms, bad = [], 0
    for data in stored:
        try:
            norms.append(float(np.linalg.norm(read_vector(data, dim).astype(np.float64))))
        except BadAudio:
            bad += 1
    said = [f"{name}: {bad} of {len(stored)} looked at are damaged"] if bad else []
    if norms:
        array = np.array(norms)
        share = float((np.abs(array - 1) < UNIT).mean())
        said.append(
            f"{name}: {share:.0%} of {len(array)} vectors have length 1 (least {array.min():.3f}, "
            f"mean {array.mean():.3f}, greatest {array.max():.3f})"
        )
    return said


@dataclass(frozen=True)
class Agreement:
    """How a CLAP file's vectors agree with the stored ones under one front end."""

    front_end: str
    cosines: tuple[float, ...]  # one a track

    def __str__(self) -> str:
        if not self.cosines:
            return f"{self.front_end}: no track of the sample could be compared"
        return (
            f"{self.front_end}: cosine {np.mean(self.cosines):.4f} on {len(self.cosines)} tracks "
            f"(least {min(self.cosines):.4f})"
        )


async def agreement(
    teacher: StoredTeacher, model: Path, source: Source, tracks: Sequence[Track]
) -> list[Agreement]:
    """Run a CLAP file, `mel_spectrogram` [b, 1, frames, 64] to [b, 512], over tracks and compare.

    A cosine near 1 says that this file wrote the vectors. Tracks without audio or vector are left out.
    Raises UserError if the file is none that takes such input.
    """
    file = open_clap(model)
    fitting = _fitting(file)
    found: dict[str, list[float]] = {name: [] for name in CLAP_RECIPES}
    for track in tracks:
        try:
            stored = teacher.vector(track)
            data = await source.fetch(track)
            for name, recipe in fitting.items():
                vector = clap_vector(file, data, recipe)
                found[name].append(float(vector @ stored / np.linalg.norm(stored)))
        except (BadAudio, OSError):
            continue
    return [Agreement(name, tuple(cosines)) for name, cosines in found.items()]


def clap_vector(file: OnnxFile, data: bytes, recipe: FeatureRecipe) -> NDArray[np.float32]:
    """A file's CLAP vector [512] of length 1, as AudioMuse-AI averages it. Raises BadAudio."""
    mel = log_mel(prepare_waveform(decode(data), recipe), recipe)
    return track_vector(segment_vectors(file, mel))


def _fitting(file: OnnxFile) -> dict[str, FeatureRecipe]:
    """The front ends whose mels the file takes. Raises UserError if it takes neither's."""
    taken: dict[str, FeatureRecipe] = {}
    for name, recipe in CLAP_RECIPES.items():
        try:
            check_clap(file, recipe)
        except UserError as error:
            refusal = error
        else:
            taken[name] = recipe
    if not taken:
        raise refusal
    return taken
