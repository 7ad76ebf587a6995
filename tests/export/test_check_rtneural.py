"""A file for RTNeural that is not in its form is named with its fault, whatever it holds."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.export.check_rtneural import rtneural_issues
from etude.export.rtneural import rtneural
from etude.students.emotion_layers import PLANS
from tests.support.emotion_networks import lived_in

NETWORK = lived_in("dynamics", "dense")
PLAN = PLANS["dynamics", "dense"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
)


def content() -> Any:
    return rtneural(NETWORK, "dynamics_engine")


def found(path: Path, said: Any) -> list[str]:
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    return list(rtneural_issues(path, PLAN, NETWORK))


def test_a_sound_file_passes(tmp_path: Path) -> None:
    assert found(tmp_path / "a.json", content()) == []


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("layers", 0, "activation"), "swish", "there is no activation swish"),
        (("layers", 2, "activation"), "tanh", "ends in tanh, it must end in sigmoid"),
        (("layers", 1, "activation"), "tanh", "does not hold the weights that PyTorch has"),
        (("layers", 1, "type"), "gru", "there is no layer type gru"),
        (("layers", 1, "type"), "lstm", "'weights_ih' is missing"),
        (("layers", 1, "in_size"), 63, "weights has shape [32, 64] where [32, 63] belongs"),
        (("layers", 1, "bias"), [0.0] * 31, "bias has shape [31] where [32] belongs"),
        (("layers", 1, "bias", 3), float("nan"), "it holds NaN, which is no number"),
        (("layers", 1, "bias", 3), float("inf"), "it holds Infinity, which is no number"),
        (("layers", 1, "bias", 3), "loud", "could not convert string to float"),
        (("layers", 1, "bias", 3), [1, 2], "is not in RTNeural's form"),
        (("layers", 1, "bias", 3), 0.5, "does not hold the weights that PyTorch has"),
        (("layers",), [], "is not in RTNeural's form"),
        (("metadata", "parameter_count"), 1, "says it has 1 parameters, it has 4720"),
        (("metadata", "export_version"), "1.0", "is version 1.0, version 2.0 is wanted"),
    ],
)
def test_each_fault_is_one_sentence(tmp_path: Path, where: tuple[Any, ...], value: Any, said: str) -> None:
    changed: Any = content()
    inner = changed
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    issues = found(tmp_path / "a.json", changed)
    assert any(said in issue for issue in issues), issues
    assert all(issue.startswith("a.json") and "\n" not in issue for issue in issues)


def test_layers_that_do_not_follow_each_other_are_found(tmp_path: Path) -> None:
    changed = content()
    changed["layers"].pop(1)
    issues = found(tmp_path / "a.json", changed)
    assert any("through layers [(32, 64), (32, 16)]: it must lead from 32 to 16" in one for one in issues)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"layers": 1e999}', "[" * 100_000, "\0"])
def test_what_is_no_such_file_is_an_issue(tmp_path: Path, text: str) -> None:
    (issue,) = found(tmp_path / "a.json", text)
    assert "is not in RTNeural's form" in issue


def test_numbers_beyond_floats_and_other_alphabets_are_issues(tmp_path: Path) -> None:
    text = json.dumps(content()).replace('"bias": [', '"bias": [1e999, ', 1)
    assert found(tmp_path / "a.json", text)
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{}")
    assert "is not in RTNeural's form" in next(rtneural_issues(tmp_path / "b.json", PLAN, None))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=JSON)
def test_no_content_breaks_the_check(tmp_path: Path, data: st.DataObject, value: Any) -> None:
    changed = content()
    layer = data.draw(st.integers(0, 2))
    key = data.draw(st.sampled_from(["type", "in_size", "out_size", "activation", "weights", "bias", None]))
    if key is None:
        changed["layers"][layer] = value
    else:
        changed["layers"][layer][key] = value
    assert all("\n" not in issue for issue in found(tmp_path / "a.json", changed))
