"""A thesaurus is written by its schema, read back the same, and completed from the forms of others."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.emotion.thesaurus import LEVELS, N_NODES, Thesaurus, thesaurus
from etude.emotion.thesaurus_json import parse_thesaurus, read_thesaurus, schema, to_json, write_thesaurus
from etude.errors import UserError

OWN = thesaurus()
WRITTEN = to_json(OWN)
CATEGORIES_OF_LIST = ("Happy", "Sad", "Angry", "Fear", "Surprise", "Disgust")


def own() -> dict[str, Any]:
    return dict(json.loads(WRITTEN))


def as_list() -> list[dict[str, Any]]:
    """The form of prepare_datasets.py: no relations, no musical factors."""
    return [
        {
            "id": node.id,
            "name": f"{node.subcategory.title()} ({node.level.title()})",
            "category": CATEGORIES_OF_LIST[node.id // 36],
            "subcategory": node.subcategory.title(),
            "intensity_level": node.level.title(),
            **node.vad._asdict(),
        }
        for node in OWN.nodes
    ]


def as_object() -> dict[str, Any]:
    """The form of emotion_nodes.json: most relations are missing, some names stand twice."""
    nodes = [
        {
            "id": node.id,
            "name": "pleased" if node.id in (0, 12) else node.name,
            "category": node.category,
            "subcategory": node.subcategory,
            "vad": {name: round(value, 3) for name, value in node.vad._asdict().items()},
            "relatedEmotions": [i for i in range(node.id - 3, node.id + 4) if 0 <= i < 39 and i != node.id]
            if node.id < 39
            else [],
            "mode": node.mode,
            "tempoMultiplier": round(node.tempo_factor, 2),
            "dynamicsScale": round(node.dynamics_factor, 2),
        }
        for node in OWN.nodes
    ]
    return {"version": "1.0", "total_nodes": 216, "nodes": nodes}


def parsed(content: Any) -> Thesaurus:
    return parse_thesaurus(json.dumps(content).encode(), "nodes.json")


def refusal(content: Any) -> str:
    with pytest.raises(UserError) as refused:
        parsed(content)
    said = str(refused.value)
    assert said.startswith("nodes.json")
    assert "\n" not in said
    return said


def is_whole(found: Thesaurus) -> None:
    for node in found.nodes:
        assert node.related
        assert all(node.id in found.nodes[other].related for other in node.related)


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "thesaurus.json"
    write_thesaurus(OWN, path)
    assert read_thesaurus(path).nodes == OWN.nodes
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesaurus.json"]


def test_the_written_form_keeps_its_schema_and_the_seeds_names() -> None:
    content = own()
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(content, schema())
    assert content["version"] == "2.0"
    seeds = {"id", "name", "category", "subcategory", "intensity_level", "vad", "mode", "tempoMultiplier"}
    assert set(content["nodes"][0]) == seeds | {"dynamicsScale", "relatedNodes"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", 216),
        ("name", ""),
        ("category", "happiness"),
        ("vad", {"valence": 1.2, "arousal": 0.1, "dominance": 0.1, "intensity": 0.1}),
        ("vad", {"valence": 0.2, "arousal": 0.1, "dominance": 0.1}),
        ("mode", "dorian"),
        ("tempoMultiplier", 0),
        ("relatedNodes", [999]),
        ("colour", "red"),
        ("two\nlines", 1),
        ("subcategory", "two\nlines"),
    ],
)
def test_schema_and_reader_refuse_the_same(key: str, value: Any) -> None:
    content = own()
    content["nodes"][3][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema())
    assert ("node 3: name: " if key == "name" else "strong relief") in refusal(content)


def test_the_list_form_is_completed() -> None:
    found = parsed(as_list())
    assert found.find("Joy/Relief/Subtle").name == "Relief (Subtle)"
    for theirs, ours in zip(found.nodes, OWN.nodes, strict=True):
        assert (theirs.category, theirs.level, theirs.vad) == (ours.category, ours.level, ours.vad)
        assert (theirs.mode, theirs.tempo_factor) == (ours.mode, ours.tempo_factor)
        assert (theirs.dynamics_factor, theirs.related) == (ours.dynamics_factor, ours.related)


def test_the_object_form_keeps_what_it_says_and_gets_the_rest() -> None:
    found = parsed(as_object())
    is_whole(found)
    assert found.nodes[20].related == (17, 18, 19, 21, 22, 23)
    assert set(OWN.nodes[100].related) <= set(found.nodes[100].related)
    assert [node.level for node in found.nodes] == [LEVELS[i % 6] for i in range(N_NODES)]
    assert found.nodes[36].tempo_factor == 0.87
    # What is said of neighbours by id alone stays, and counts for nothing.
    assert dict(found.related(35))[36] < 1e-4


def test_a_name_that_stands_twice_must_be_given_as_a_path() -> None:
    found = parsed(as_object())
    with pytest.raises(
        UserError, match="several nodes of the thesaurus: give one of joy/relief/subtle, joy/"
    ):
        found.find("pleased")
    assert found.find("joy/relief/subtle").id == 0


def test_a_relation_that_is_said_once_goes_both_ways() -> None:
    content = own()
    for node in content["nodes"]:
        node["relatedNodes"] = [other for other in node["relatedNodes"] if other > node["id"]]
    assert [node.related for node in parsed(content).nodes] == [node.related for node in OWN.nodes]


def test_nodes_may_come_in_any_order() -> None:
    content = own()
    content["nodes"].reverse()
    assert parsed(content).nodes == OWN.nodes


def test_two_nodes_with_one_id_are_refused() -> None:
    content = own()
    content["nodes"][3]["id"] = 4
    assert refusal(content) == "nodes.json: strong relief and intense relief are both node 4"


def test_two_nodes_with_one_path_are_refused() -> None:
    content = own()
    content["nodes"][3]["intensity_level"] = "intense"
    assert refusal(content) == "nodes.json: nodes 3 and 4 are both joy/relief/intense"


@pytest.mark.parametrize("n_nodes", [0, 215, 217])
def test_a_wrong_count_is_refused(n_nodes: int) -> None:
    content = own()
    content["nodes"] = (content["nodes"] * 2)[:n_nodes]
    assert refusal(content) == f"nodes.json holds {n_nodes} nodes: a thesaurus has 216"


@pytest.mark.parametrize("value", [1.5, -1.5, float("nan"), float("inf"), "0.5", None, True])
def test_a_position_outside_its_range_is_refused_in_every_form(value: Any) -> None:
    flat, nested = as_list(), as_object()
    flat[7]["valence"] = value
    nested["nodes"][7]["vad"]["valence"] = value
    assert "node 7 Hope (Mild): vad.valence: " in refusal(flat)
    assert "node 7 mild hope: vad.valence: " in refusal(nested)


def test_a_complaint_about_text_that_is_none_can_be_printed() -> None:
    content = own()
    content["nodes"][3]["name"] = "\ud800"
    assert refusal(content).encode().startswith(b"nodes.json: node 3 ?: name: ")


def test_a_position_that_is_missing_is_refused() -> None:
    flat = as_list()
    del flat[7]["arousal"]
    assert refusal(flat) == "nodes.json: node 7 Hope (Mild): vad.arousal: field required"


def test_unknown_relations_and_those_to_itself_are_refused() -> None:
    content = as_object()
    content["nodes"][7]["relatedEmotions"] = [3, 216]
    assert "node 7 mild hope: relatedEmotions.1: " in refusal(content)
    content["nodes"][7]["relatedEmotions"] = [3, 7]
    assert refusal(content) == "nodes.json: node 7 mild hope is related to itself"


def test_a_category_that_the_id_contradicts_is_refused() -> None:
    content = own()
    content["nodes"][40]["category"] = "joy"
    assert "node 40 extreme" not in refusal(content)
    assert "is of category joy, but ids from 36 to 71 are sad" in refusal(content)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"3", "is no thesaurus"),
        (b"{}", "is no thesaurus"),
        (b'{"nodes": {}}', "is no thesaurus"),
        (b'{"version": "9", "nodes": []}', "is of version '9'"),
        (json.dumps([1] * 216).encode(), "the node at place 1 is no JSON object"),
        (json.dumps([{}] * 216).encode(), "the node at place 1: id: field required"),
    ],
)
def test_what_is_no_thesaurus_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_thesaurus(data, "nodes.json")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*thesaurus\.json: No such file"):
        read_thesaurus(tmp_path / "thesaurus.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.integers(0, N_NODES - 1), st.sampled_from(sorted(own()["nodes"][0])), JSON)
def test_any_value_anywhere_gives_a_whole_thesaurus_or_one_sentence(place: int, key: str, value: Any) -> None:
    content = own()
    content["nodes"][place][key] = value
    try:
        is_whole(parsed(content))
    except UserError as refused:
        assert str(refused).startswith("nodes.json")
        assert "\n" not in str(refused)
