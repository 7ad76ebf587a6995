"""What `jobs/embed_library.py` can be told."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from etude.config import Secret
from etude.experiments.audio import AudioExperiment
from etude.teachers.stored import Table


class EmbedLibrary(AudioExperiment):
    """Embed a library. Files: --config FILE.yaml. Environment: ETUDE_SOURCE__DSN=postgresql://..."""

    plan: bool = False
    model: Path | None = Field(None, description="an exported student, *_waveform.onnx")
    to: Literal["parquet", "audiomuse"] = "parquet"
    out: Path | None = Field(None, description="folder of Parquet files; without one, a folder below home")
    dsn: Secret | None = Field(None, description="AudioMuse-AI's database; without one, source.dsn")
    table: Table = "clap_embedding"
    write: bool = Field(False, description="change the database, instead of counting what would change")
    rollback: bool = Field(False, description="undo the latest --write of --table")
