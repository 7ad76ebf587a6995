"""What experiments share that learn from a prepared library and what is said of its tracks."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from etude.data.batches import Splits, open_splits
from etude.data.captions import read_captions
from etude.errors import UserError
from etude.experiments.library import LibraryExperiment
from etude.sources import build_source
from etude.sources.captions import CaptionConfig, TemplateCaptions
from etude.teachers import build_teacher

_BRING_CAPTIONS = ("captioned", "musicbench")  # sources


class CaptionedExperiment(LibraryExperiment):
    """A library whose tracks have captions: those that came with the music, or made ones."""

    shared: ClassVar[frozenset[str]] = LibraryExperiment.shared | {"captions"}
    prepared_by: ClassVar[str]  # the job that makes what is missing

    # A factory: of a default, pydantic-settings does not tell whether someone asked for just that.
    captions: CaptionConfig = Field(default_factory=TemplateCaptions)

    @model_validator(mode="before")
    @classmethod
    def _own_where_some_came(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        captions, source = data.get("captions"), data.get("source")
        name = source.get("name") if isinstance(source, dict) else getattr(source, "name", None)
        if captions is None and name in _BRING_CAPTIONS:
            return data | {"captions": {"name": "own"}}
        if isinstance(captions, dict) and "name" not in captions:
            return data | {"captions": captions | {"name": "template"}}
        return data

    def captioned_splits(self) -> tuple[Splits, Mapping[str, tuple[str, ...]]]:
        """The prepared tracks that have captions, divided, and these by track id.

        Raises UserError if nothing was prepared, or no track has any.
        """
        source = build_source(self.source, self.cache)
        captions = read_captions(self.store, self.captions, list(self.store.read_catalogue(source.id)))
        if not captions:
            raise UserError(
                f"no track of {source.id} has captions made as {self.captions.id} makes them: run "
                f"{self.prepared_by} with these settings first, without --skip-data-prep"
            )
        ids = [build_teacher(one).id for one in self.teachers]
        return open_splits(self.store, source.id, self.recipe, ids, self.split, only=captions), captions
