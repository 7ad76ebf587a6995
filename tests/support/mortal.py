"""Emotion experiments whose workers die by SIGKILL at a given step, once, or take their time."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from etude.data.emotion_examples import EmotionStream
from etude.experiments.emotion import EmotionExperiment, EmotionStudy


class Mortal(EmotionExperiment):
    """An experiment that is disturbed."""

    deaths: Path  # a folder with a file for every death there was
    dies_at: tuple[tuple[int, int, int], ...] = ()  # epoch, step and rank; epochs and steps from 0
    step_s: float = 0.0
    full: Path | None = None  # while this file is there, the disk is full

    def open(self) -> "MortalStudy":
        return MortalStudy(self, self.sets())


@dataclass(frozen=True)
class MortalStudy(EmotionStudy):
    @cached_property
    def training(self) -> "MortalStream":  # type: ignore[override]
        return MortalStream(super().training, self.settings)  # type: ignore[arg-type]


@dataclass(frozen=True)
class MortalStream:
    """A stream that kills the process which reads it."""

    stream: EmotionStream
    settings: Mortal

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def batches(self, batch_size: int, *, epoch: int, rank: int, **others: Any) -> Iterator[Any]:
        for step, batch in enumerate(self.stream.batches(batch_size, epoch=epoch, rank=rank, **others)):
            time.sleep(self.settings.step_s)
            if self.settings.full and self.settings.full.exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if (epoch, step, rank) in self.settings.dies_at:
                self._die(f"{epoch}-{step}-{rank}")
            yield batch

    def _die(self, name: str) -> None:
        self.settings.deaths.mkdir(exist_ok=True)
        marker = self.settings.deaths / name
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
