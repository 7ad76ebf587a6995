"""The model card: what a set of files is, what it learned from, how good it is, under which licences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etude.evaluation.figures import Figures
from etude.export.parity import Parity


@dataclass(frozen=True)
class Card:
    """The parts of a card that differ between systems."""

    tags: tuple[str, ...]
    what: str  # completes "A student of `teacher` for ..."
    files: tuple[tuple[str, str], ...]  # file name, what goes in
    figures_on: str  # completes "Figures on ..."
    licenses: tuple[str, ...]  # one line each
    output: str = "embedding"  # the name of what comes out

    def text(self, name: str, record: Mapping[str, Any], test: Figures, parity: Mapping[str, Parity]) -> str:
        """Markdown with the front matter that model hubs read."""
        files = "\n".join(f"| `{file}` | {inputs} | `{self.output}` |" for file, inputs in self.files)
        agreement = "\n".join(
            f"| `{form}` | {p.n} | {p.min_cosine:.6f} | {p.max_difference:.1e} |"
            for form, p in parity.items()
        )
        figures = "\n".join(f"| {one.name} | {one.value} | {one.beside} |" for one in test.lines("items"))
        licenses = "\n".join(f"- {line}" for line in self.licenses)
        return f"""---
library_name: onnx
pipeline_tag: feature-extraction
tags: [{", ".join(self.tags)}]
---
# {name}

A student of `{record["teacher"]}` for {self.what}, {record["parameters"]:,} parameters,
{record["macs"] / 1e6:.0f} million multiply-adds.

| file | input | output |
|---|---|---|
{files}

Each file holds how it was made, its teacher, data hash and figures under the metadata key `etude`.

## Figures on {self.figures_on}

| figure | student | doing nothing |
|---|---|---|
{figures}

## Agreement of the files with PyTorch on real input

| form | inputs | least cosine | largest difference |
|---|---|---|---|
{agreement}

## Licences

{licenses}
"""
