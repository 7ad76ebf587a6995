"""A model is what lies on this disk: in a folder or in Hugging Face's cache, told by its contents."""

import os
from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch
from torch import nn

from etude.config import Section
from etude.errors import UserError
from etude.teachers.paths import Weights
from etude.teachers.weights import digest, fill, model_folder, read_json, read_tensors, tensors_file

NAME = "OpenMuQ/MuQ-MuLan-large"


class Model(Section):
    weights: Weights = NAME


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way out of this machine."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", _refused)
    return tmp_path / "hub"


def _refused(*_: object) -> None:
    raise AssertionError("something was to be downloaded")


def test_a_published_model_is_found_in_the_cache(cache: Path) -> None:
    with pytest.raises(UserError, match=rf"{NAME}, the files of MuQ-MuLan, is not .* `hf download {NAME}`"):
        model_folder(NAME, "MuQ-MuLan")
    with pytest.raises(UserError, match=rf"`hf download {NAME} config\.json`"):
        model_folder(NAME, "MuQ-MuLan", "config.json")
    kept = cache / "models--OpenMuQ--MuQ-MuLan-large"
    (kept / "snapshots" / "8f3a").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("8f3a")
    (kept / "snapshots" / "8f3a" / "config.json").write_text("{}")
    assert read_json(model_folder(NAME, "MuQ-MuLan") / "config.json") == {}


def test_a_name_that_can_be_none_is_refused(cache: Path) -> None:
    with pytest.raises(UserError, match="is not on this machine"):
        model_folder("a--b/c..d", "MERT")


def test_a_folder_goes_before_a_name_and_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Model().weights == Model(weights=NAME).weights == NAME
    (tmp_path / "models" / "mert").mkdir(parents=True)
    for given in ("models/mert", "~/models/mert", "./models/mert"):
        assert Model(weights=given).weights == str(tmp_path / "models" / "mert")
    gone = Model(weights="./gone").weights
    with pytest.raises(UserError, match=r"no folder .*/gone with the files of MERT: set teacher\.weights"):
        model_folder(gone, "MERT")


def test_a_digest_tells_contents_and_not_places(tmp_path: Path) -> None:
    one, same = tmp_path / "one", tmp_path / "same"
    for file in (one, same):
        file.write_bytes(b"weights")
    assert digest(one) == digest(same) and len(digest(one)) == 8
    assert digest(one, same) != digest(one)
    before = digest(one)
    one.write_bytes(b"WEIGHTS")
    os.utime(one, ns=(1, 1))
    assert digest(one) != before


def test_tensors_are_read_from_either_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"is no MERT: it has no file model\.safetensors or pytorch_model\.bin"
    ):
        tensors_file(tmp_path, "MERT")
    tensors = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    found = read_tensors(tensors_file(tmp_path, "MERT"))
    safetensors.torch.save_file(
        {name: one + 1 for name, one in tensors.items()}, tmp_path / "model.safetensors"
    )
    safer = read_tensors(tensors_file(tmp_path, "MERT"))
    assert found.keys() == safer.keys() == tensors.keys()
    assert torch.equal(safer["weight"], found["weight"] + 1)
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="hold no tensors by name"):
        read_tensors(tmp_path / "pytorch_model.bin")


def test_only_the_tensors_that_are_asked_for_are_filled_in(tmp_path: Path) -> None:
    module, file = nn.Linear(3, 2), tmp_path / "weights"
    tensors = {"in.weight": torch.ones(2, 3), "in.bias": torch.zeros(2), "out.weight": torch.zeros(1)}
    fill(module, tensors, "in.", file, "MERT")
    assert torch.equal(module.weight, torch.ones(2, 3))
    with pytest.raises(UserError, match=r"weights is no MERT: it has nothing at out\.bias, not \[2\]"):
        fill(module, tensors | {"out.weight": torch.ones(2, 3)}, "out.", file, "MERT")
    with pytest.raises(UserError, match=r"it has \[1\] at out\.weight, not \[2, 3\]"):
        fill(module, tensors, "out.", file, "MERT")


def test_a_configuration_that_is_none_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for content, said in (("{", "cannot read"), ("[]", "holds no keys and values")):
        file.write_text(content)
        with pytest.raises(UserError, match=said):
            read_json(file)
