"""Prepared emotion pieces without Ray: made-up ones, which a model can learn."""

from pathlib import Path
from typing import Any

from etude.config import load
from etude.data.emotion_synthetic import write_synthetic
from etude.experiments.emotion import EmotionExperiment


def synthetic_experiment(home: Path, *words: str, n: int = 200) -> EmotionExperiment:
    """An experiment whose n made-up pieces are in the store; `words` are more of its command line."""
    settings: Any = load(EmotionExperiment, ["--home", str(home), "--num_samples", str(n), *words])
    write_synthetic(settings.store, settings.source_id, settings.analysis, n)
    assert isinstance(settings, EmotionExperiment)
    return settings
