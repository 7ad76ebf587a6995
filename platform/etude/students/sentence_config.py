"""Which pretrained text encoder reads the queries, and whether it learns."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from etude.config import Section

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
INSTRUCTION = "Given a description of music, retrieve the pieces of music that it describes"


class LoraConfig(Section):
    """Small matrices beside frozen ones (arXiv:2106.09685). Defaults: facts/projection_and_emotion.md, a."""

    rank: int = Field(16, ge=1, le=1024)
    alpha: int = Field(32, ge=1, description="what the matrices add counts alpha / rank times")
    dropout: float = Field(0.1, ge=0, lt=1, description="of their inputs; the frozen network has none")


class MiniLMEncoderConfig(Section):
    """all-MiniLM-L6-v2: 384-d, up to 256 tokens; in a package, and small enough for any machine."""

    name: Literal["minilm"] = "minilm"
    lora: LoraConfig | None = Field(None, description="None: the encoder is frozen")


class QwenEncoderConfig(Section):
    """Qwen3-Embedding: 1024-d (0.6B) or 2560-d (4B); from a folder or the Hugging Face cache."""

    name: Literal["qwen3"] = "qwen3"
    model: str = Field(
        "Qwen/Qwen3-Embedding-0.6B",
        description="a name on the Hugging Face hub, Qwen/Qwen3-Embedding-4B for instance; or a folder, "
        "which begins with /, ~ or .",
    )
    revision: str | None = Field(
        None, min_length=1, description="commit of the hub's repository; None: the newest in the cache"
    )
    max_tokens: int = Field(512, ge=8, le=32_768, description="longest text, the instruction included")
    instruction: str | None = Field(
        INSTRUCTION, min_length=1, description="put before queries, and queries alone; None: nothing is"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the frozen weights; auto: bfloat16 on a GPU that has it, float32 elsewhere"
    )
    gradient_checkpointing: bool = Field(
        False, description="train in less memory and a third more time: layers are computed twice"
    )
    lora: LoraConfig | None = Field(None, description="None: the encoder is frozen")

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        if model.startswith(("/", "~", ".")):
            return str(Path(model).expanduser().absolute())  # workers run in folders of their own
        if not _HUB_NAME.fullmatch(model):
            raise ValueError(
                f"{model!r} is no name on the hub, owner/model, and no folder: that begins with /, ~ or ."
            )
        return model

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.revision and self.is_folder:
            raise ValueError(f"a folder has no revision: leave it out for {self.model}")
        if self.gradient_checkpointing and self.lora is None:
            raise ValueError(
                "gradient_checkpointing is for an encoder that learns: set lora, or leave it out"
            )
        return self

    @property
    def is_folder(self) -> bool:
        return self.model.startswith("/")


SentenceEncoderConfig = Annotated[MiniLMEncoderConfig | QwenEncoderConfig, Field(discriminator="name")]
