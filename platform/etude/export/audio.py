"""What publishing an audio student takes: real audio for the gate, its card, its plots."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.batches import Dataset, all_batches
from etude.errors import BadAudio, UserError
from etude.evaluation.metrics import Metrics
from etude.evaluation.report import Compared, held_out_plots
from etude.experiments.audio import AudioStudy
from etude.experiments.library import LibraryExperiment
from etude.export.card import Card
from etude.export.onnx import run_onnx, session
from etude.export.parity import Parity, RealAudio, check_parity, real_audio
from etude.sources import Track, build_source
from etude.systems.student_clap import StudentClap, compare

GATE_TRACKS = 6  # held-out tracks whose audio goes through the gate


@dataclass(frozen=True)
class AudioRelease:
    """An audio study as `publish` wants it."""

    study: AudioStudy
    comparable = ("recipe_id", "teacher")

    def record(self) -> dict[str, Any]:
        settings, teacher = self.study.settings, self.study.teacher
        return {
            "recipe": settings.recipe.model_dump(),
            "recipe_id": settings.recipe.id,
            "teacher": teacher.id,
            "teacher_license": teacher.license,
            "normalized": teacher.normalized,
            "student": settings.student.model_dump(mode="json"),
            "data_licenses": licenses(self.study.splits.train),
        }

    def check(self, system: StudentClap, files: Sequence[Path]) -> dict[str, Parity]:
        return check_parity(
            system.student,
            files[0],
            files[1],
            gate_audio(self.study.settings, self.study.test, self.study.validation),
        )

    def score(self, files: Sequence[Path]) -> Metrics:
        opened = session(files[0])
        vectors, tracks = [], []
        for batch in all_batches(self.study.validation, 16):
            vectors.append(run_onnx(opened, batch.mel.numpy()[:, None], 16))
            tracks.append(batch.track.numpy())
        return compare(np.concatenate(vectors), np.concatenate(tracks), self.study.validation)

    def card(self) -> Card:
        recipe, test = self.study.settings.recipe, self.study.test
        learned = licenses(self.study.splits.train).items()
        return Card(
            tags=("music", "audio-embedding", "distillation"),
            what=f"{recipe.segment_samples / recipe.sample_rate:g} s of music",
            files=(
                ("student.onnx", f"`mel_spectrogram` (batch, 1, {recipe.n_mels}, {recipe.n_frames}) in dB"),
                (
                    "student_waveform.onnx",
                    f"`waveform` (batch, {recipe.segment_samples}), mono, {recipe.sample_rate} Hz, -1..1",
                ),
            ),
            figures_on=f"{len(test)} held-out tracks ({test.n_segments} segments)",
            licenses=(
                f"the teacher's weights: {self.study.teacher.license}",
                *(f"{count} tracks: {license_}" for license_, count in learned),
            ),
        )

    def plots(self, system: StudentClap, folder: Path) -> list[Path]:
        test = self.study.test
        student, tracks = system.embed(test, self.study.settings.training.batch_size)
        teacher = np.concatenate([row.segment_targets for row in test])
        titles = [f"{row.track.title} ({row.track.artist or 'unknown'})" for row in test]
        return held_out_plots(Compared(student, teacher, tracks, titles, "segments"), folder)


def licenses(learned: Dataset) -> dict[str, int]:
    """How many tracks of each licence a student learned from."""
    return dict(Counter(row.track.license for row in learned).most_common())


def gate_audio(settings: LibraryExperiment, *sets: Dataset) -> RealAudio:
    """Original files of the sets' first tracks, for the gate. Raises UserError if none is in reach."""
    return asyncio.run(_gate_audio(settings, [row.track for rows in sets for row in rows]))


async def _gate_audio(settings: LibraryExperiment, tracks: list[Track]) -> RealAudio:
    source = build_source(settings.source, settings.cache)
    files, reason = [], ""
    for track in tracks:
        try:
            files.append(real_audio(await source.fetch(track), settings.recipe))
        except (OSError, BadAudio) as error:
            reason = f"{track.uri}: {error}"
        if len(files) == GATE_TRACKS:
            break
    await source.aclose()
    if not files:
        raise UserError(f"the export cannot be checked, no held-out track can be fetched ({reason})")
    return RealAudio(np.concatenate([f.waveforms for f in files]), np.concatenate([f.mels for f in files]))
