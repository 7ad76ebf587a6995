"""The thesaurus as a JSON file: Étude's own form, and the two forms of seed 5's project (facts b).

Those two are a list of nodes whose four numbers stand beside the name, and an object whose nodes have a `vad`
and `relatedEmotions`. Neither says all; what is missing is completed.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from etude.emotion.thesaurus import (
    CATEGORIES,
    LEVELS,
    N_NODES,
    Node,
    Thesaurus,
    dynamics_factor,
    mode_of,
    relations,
    tempo_factor,
)
from etude.emotion.vad import VAD
from etude.errors import UserError

VERSION: Final = "2.0"  # seed 5's project calls its own 1.0
_OTHER_NAMES = {"happy": "joy", "angry": "anger"}  # of categories, in the form that is a list

NodeId = Annotated[int, Field(ge=0, lt=N_NODES)]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Word = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]  # it must fit into one line
Mode = Literal["major", "minor"]


class Position(BaseModel):
    """The four numbers of a node."""

    model_config = ConfigDict(strict=True, extra="forbid")

    valence: float = Field(ge=-1, le=1)
    arousal: float = Field(ge=0, le=1)
    dominance: float = Field(ge=0, le=1)
    intensity: float = Field(ge=0, le=1)


class GivenNode(BaseModel):
    """A node in any of the three forms."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: NodeId
    name: Word
    category: Word
    subcategory: Word
    intensity_level: Word | None = None
    vad: Position
    mode: Mode | None = None
    tempoMultiplier: Factor | None = None
    dynamicsScale: Factor | None = None
    relatedNodes: list[NodeId] = Field([], validation_alias=AliasChoices("relatedNodes", "relatedEmotions"))

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, data: Any) -> Any:
        """Move numbers that stand beside the name into `vad`."""
        if not isinstance(data, dict) or "vad" in data:
            return data
        rest = {key: value for key, value in data.items() if key not in VAD._fields}
        return rest | {"vad": {key: data[key] for key in VAD._fields if key in data}}


class WrittenNode(GivenNode):
    """A node in Étude's own form, which says all."""

    category: Literal["joy", "sad", "anger", "fear", "surprise", "disgust"]
    intensity_level: Word
    mode: Mode
    tempoMultiplier: Factor
    dynamicsScale: Factor
    relatedNodes: list[NodeId]


class WrittenThesaurus(BaseModel):
    """Étude's own form."""

    model_config = ConfigDict(strict=True, extra="forbid")

    version: Literal["2.0"]
    total_nodes: Literal[216]
    nodes: list[WrittenNode] = Field(min_length=N_NODES, max_length=N_NODES)


def schema() -> dict[str, Any]:
    """The JSON Schema of Étude's own form."""
    return WrittenThesaurus.model_json_schema(mode="serialization")


def to_json(thesaurus: Thesaurus) -> str:
    """Étude's own form, which `parse_thesaurus` reads back to the same nodes."""
    nodes = [
        WrittenNode(
            id=node.id,
            name=node.name,
            category=node.category,  # type: ignore[arg-type]
            subcategory=node.subcategory,
            intensity_level=node.level,
            vad=Position(**node.vad._asdict()),
            mode=node.mode,  # type: ignore[arg-type]
            tempoMultiplier=node.tempo_factor,
            dynamicsScale=node.dynamics_factor,
            relatedNodes=list(node.related),
        )
        for node in thesaurus.nodes
    ]
    whole = WrittenThesaurus(version=VERSION, total_nodes=N_NODES, nodes=nodes)
    return whole.model_dump_json(indent=2) + "\n"


def write_thesaurus(thesaurus: Thesaurus, path: Path) -> None:
    """Write Étude's own form, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(to_json(thesaurus), encoding="utf-8")
    os.replace(temporary, path)


def read_thesaurus(path: Path) -> Thesaurus:
    """A thesaurus from a file in any of the three forms; raises UserError as `parse_thesaurus` does."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return parse_thesaurus(data, str(path))


def parse_thesaurus(data: bytes, where: str) -> Thesaurus:
    """A thesaurus from JSON in any of the three forms, completed.

    A mode, a factor or a level that is missing follows the rule of `etude.emotion.thesaurus`. Relations are
    made to go both ways, and a node that has none gets those of the rule. Raises UserError, which names the
    node, for what is no thesaurus.
    """
    entries = _entries(data, where)
    if len(entries) != N_NODES:
        raise UserError(f"{where} holds {len(entries)} nodes: a thesaurus has {N_NODES}")
    try:
        given = TypeAdapter(list[GivenNode]).validate_python(entries)
    except ValidationError as error:
        raise UserError(f"{where}: {_complaint(error, entries)}") from None
    return _completed(given, where)


def _entries(data: bytes, where: str) -> list[Any]:
    """The nodes as JSON has them."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError(
            f"{where} is no JSON: prepare_emotion writes a thesaurus.json of the right form"
        ) from None
    if isinstance(found, list):
        return found
    nodes = found.get("nodes") if isinstance(found, dict) else None
    if not isinstance(nodes, list):
        raise UserError(f"{where} is no thesaurus: give a list of nodes, or an object with a list `nodes`")
    version = found.get("version", "1.0")
    if version not in ("1.0", VERSION):
        raise UserError(f"{where} is of version {version!r}: versions 1.0 and {VERSION} can be read")
    return nodes


def _complaint(error: ValidationError, entries: Sequence[Any]) -> str:
    """The first thing wrong, with the node that has it."""
    first = error.errors(include_url=False)[0]
    place, *keys = first["loc"]
    entry = entries[int(place)]
    if not isinstance(entry, dict):
        return f"the node at place {int(place) + 1} is no JSON object"
    known = [str(entry[key]) for key in ("id", "name") if entry.get(key, "") != ""]
    node = f"node {' '.join(known):.80}" if known else f"the node at place {int(place) + 1}"
    said = first["msg"][0].lower() + first["msg"][1:]
    what = f"{'.'.join(map(str, keys))}: " if keys else ""
    shown = "" if first["type"] == "missing" else f", not {first['input']!r:.60}"
    sentence = " ".join(f"{node}: {what:.60}{said}{shown}".split())  # one line, whatever a name holds
    return sentence.encode(errors="replace").decode()


def _completed(given: Sequence[GivenNode], where: str) -> Thesaurus:
    by_id: dict[int, GivenNode] = {}
    for node in given:
        if node.id in by_id:
            raise UserError(f"{where}: {by_id[node.id].name} and {node.name} are both node {node.id}")
        by_id[node.id] = node
    vads = [VAD(**by_id[number].vad.model_dump()) for number in range(N_NODES)]
    related = _both_ways(by_id, relations(np.array(vads)), where)
    nodes = [_node(by_id[number], vads[number], related[number], where) for number in range(N_NODES)]
    paths: dict[str, Node] = {}
    for made in nodes:
        if other := paths.get(made.path):
            raise UserError(f"{where}: nodes {other.id} and {made.id} are both {made.path}")
        paths[made.path] = made
    return Thesaurus(nodes)


def _node(given: GivenNode, vad: VAD, related: tuple[int, ...], where: str) -> Node:
    lower = given.category.lower()
    category, expected = _OTHER_NAMES.get(lower, lower), CATEGORIES[given.id // 36]
    if category != expected:
        raise UserError(
            f"{where}: node {given.id} {given.name} is of category {given.category}, "
            f"but ids from {given.id // 36 * 36} to {given.id // 36 * 36 + 35} are {expected}"
        )
    return Node(
        id=given.id,
        name=given.name,
        category=category,
        subcategory=given.subcategory,
        level=(given.intensity_level or LEVELS[given.id % 6]).lower(),
        vad=vad,
        mode=given.mode or mode_of(category),
        tempo_factor=given.tempoMultiplier or tempo_factor(vad),
        dynamics_factor=given.dynamicsScale or dynamics_factor(vad),
        related=related,
    )


def _both_ways(
    by_id: dict[int, GivenNode], rule: Sequence[tuple[int, ...]], where: str
) -> list[tuple[int, ...]]:
    """Ids related to each node: those given, and those of the rule for a node that nobody relates to."""
    related: list[set[int]] = [set() for _ in range(N_NODES)]

    def relate(node_id: int, others: Sequence[int]) -> None:
        for other in others:
            related[node_id].add(other)
            related[other].add(node_id)

    for node_id, node in by_id.items():
        if node_id in node.relatedNodes:
            raise UserError(f"{where}: node {node_id} {node.name} is related to itself")
        relate(node_id, node.relatedNodes)
    for node_id in [number for number, others in enumerate(related) if not others]:
        relate(node_id, rule[node_id])
    return [tuple(sorted(others)) for others in related]
