"""What `jobs/embed_library.py` and `jobs/search.py` can be told."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from etude.config import Secret, Settings, default_home, merge, read_yaml
from etude.experiments.audio import AudioExperiment
from etude.export.text_projection import HEAD
from etude.inference.milvus import MilvusConfig
from etude.inference.pair import MUSIC
from etude.sources import DemoConfig, SourceConfig
from etude.teachers.stored import Table

MOST = 100  # tracks that an answer holds


class EmbedLibrary(AudioExperiment):
    """Embed a library. Files: --config FILE.yaml. Environment: ETUDE_SOURCE__DSN=postgresql://..."""

    learns: ClassVar[bool] = False

    plan: bool = False
    model: Path | None = Field(None, description="an exported student, *_waveform.onnx")
    to: Literal["parquet", "audiomuse"] = "parquet"
    out: Path | None = Field(None, description="folder of Parquet files; without one, a folder below home")
    dsn: Secret | None = Field(None, description="AudioMuse-AI's database; without one, source.dsn")
    table: Table = "clap_embedding"
    write: bool = Field(False, description="change the database, instead of counting what would change")
    rollback: bool = Field(False, description="undo the latest --write of --table")


class Search(Settings):
    """Search a prepared library by words. Files: --config FILE.yaml. Environment: ETUDE_TOP=20.

    The config.yaml in the model's folder says which library, unless other options say otherwise.
    """

    query: CliPositionalArg[str] = Field("", description='how the music sounds, in quotes: "slow piano"')
    home: Path = Field(default_factory=default_home, description="where all that is made lies")
    storage: str | None = Field(None, description="where prepared data lies, if not below home; s3:// too")
    source: SourceConfig = Field(DemoConfig(), discriminator="name")
    model: Path | None = Field(
        None,
        description="an export folder, or its music_encoder.onnx; without one, the newest below home",
    )
    text: Path | None = Field(None, description="text_encoder.onnx; without one, that beside the model")
    like: Path | None = Field(None, description="an audio file: what sounds like it, instead of a query")
    top: int = Field(10, ge=1, le=MOST, description="tracks shown")
    index: Literal["built-in", "milvus"] = Field(
        "built-in", description="built-in: exact, beyond 50,000 tracks a graph; or a Milvus collection"
    )
    milvus: MilvusConfig = MilvusConfig()
    serve: bool = Field(False, description="offer a page in the browser, until Ctrl-C")
    host: str = Field("127.0.0.1", description="the address that the page listens on")
    port: int = Field(8780, ge=0, le=65535, description="of the page; 0: any that is free")
    names: tuple[str, ...] = Field(
        (), description="names by which other machines may call the page, beside localhost"
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @model_validator(mode="after")
    def _one_index(self) -> Self:
        if self.index != "milvus" and self.milvus != MilvusConfig():
            raise ValueError("milvus.* is for --index milvus: give that too, or leave it out")
        return self

    @model_validator(mode="before")
    @classmethod
    def _as_the_model_says(cls, data: Any) -> Any:
        model = data.get("model") or newest_export(Path(data.get("home") or default_home()))
        if model is None:
            return data
        model = Path(model).expanduser()
        beside = (model if model.is_dir() else model.parent) / "config.yaml"
        made_with = read_yaml(beside) if beside.is_file() else {}
        kept: dict[str, Any] = {
            key: made_with[key] for key in ("home", "storage", "source") if key in made_with
        }
        if _kind(data.get("source")) not in (None, _kind(kept.get("source"))):
            kept.pop("source", None)  # another kind of library has none of its keys
        return merge(kept, data) | {"model": model}


def newest_export(home: Path) -> Path | None:
    """The folder below `home` that can be searched with and was exported last, None if there is none."""
    exports = home.expanduser() / "exports"
    found = [*exports.glob(f"music-text/*/{MUSIC}"), *exports.glob(f"text-projection/*/{HEAD}")]
    return max(found, key=lambda file: file.stat().st_mtime_ns).parent if found else None


def _kind(source: object) -> object:
    """The kind of library that settings name, None if they name none; what is no section is refused later."""
    return source.get("name") if isinstance(source, dict) else None
