"""Which text encoder learns, and what all of them can do."""

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from etude.config import Section
from etude.students.head import LinearHead, ProjectionHead

_OF_LAYERS = ("layers", "heads", "token_dim")  # settings without a meaning where there are no layers


class TextStudentConfig(Section):
    """Which text encoder learns, and how large it is. Width, depth and heads as in facts/audiomuse.md, c."""

    name: Literal["transformer", "mean"] = Field(
        "transformer", description="layers of attention, or seed 1's mean over a table of tokens"
    )
    hidden: int = Field(256, ge=8, le=2048, description="width of the layers; of mean's table")
    layers: int = Field(2, ge=1, le=24)
    heads: int = Field(4, ge=1, le=32, description="of attention; hidden is a multiple of it")
    token_dim: int = Field(64, ge=4, le=2048, description="numbers a token in the table, below hidden")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the layers and in the projection head")
    max_tokens: int = Field(
        77, ge=3, le=512, description="longest text, start and end included; 77 is CLAP's"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name == "transformer" and self.hidden % self.heads:
            raise ValueError(
                f"hidden is {self.hidden}, which {self.heads} heads cannot share: take a multiple"
            )
        if self.name == "mean":
            # A resolved configuration that is read again names every key: only other values are meant.
            set_ = [key for key in _OF_LAYERS if getattr(self, key) != type(self).model_fields[key].default]
            if set_:
                raise ValueError(f"{' and '.join(set_)} belong to the transformer: leave them out for mean")
        return self


class TextEncoder(nn.Module):
    """Token ids [b, t] and their mask [b, t], both int64, to embeddings [b, dim], of length 1 if asked for.

    Padding comes after the text, and changes nothing.
    """

    head: ProjectionHead | LinearHead
    _frozen = False

    def start_at(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Give the untrained student the teacher's mean and spread, see the head's `start_at`."""
        self.head.start_at(mean_D, std_D)

    def freeze_backbone(self) -> None:
        """From now on only the head learns, and dropout acts in it alone."""
        self._frozen = True
        for name, module in self.named_children():
            module.requires_grad_(name == "head")
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name, module in self.named_children():
            module.train(mode and (name == "head" or not self._frozen))
        return self
