"""Published weights fill a backbone by name, and a file that does not fit is named with what it is.

The files here are written by the tests: names and shapes are those of EfficientAT, the numbers are random.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from etude.errors import UserError
from etude.students import BACKBONES, StudentConfig, build_student
from etude.students.dynamic_mobilenet import dynamic_mobilenet
from etude.students.mobilenet import mobilenet
from etude.students.published import load_published

PUBLISHED = [("mobilenet", width) for width in (0.4, 0.5, 1.0, 2.0, 3.0, 4.0)] + [
    ("dynamic_mobilenet", width) for width in (0.4, 1.0, 2.0)
]
WITH_CLASSES = {"mobilenet": mobilenet, "dynamic_mobilenet": dynamic_mobilenet}


def _random_state(name: str, width: float) -> dict[str, Tensor]:
    """A state dict as published, its classifier included, of random numbers."""
    with torch.device("meta"):
        shapes = WITH_CLASSES[name](width, 527).state_dict()
    generator = torch.Generator().manual_seed(int(10 * width))
    return {
        key: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.tensor(7, dtype=value.dtype)
        for key, value in shapes.items()
    }


def _file(folder: Path, name: str, width: float) -> Path:
    path = folder / f"{name}_{width}.pt"
    torch.save(_random_state(name, width), path)
    return path


@pytest.mark.parametrize(
    ("name", "width"), [("mobilenet", 0.4), ("mobilenet", 1.0), ("dynamic_mobilenet", 0.4)]
)
def test_every_tensor_of_a_student_is_the_files(tmp_path: Path, name: str, width: float) -> None:
    path = _file(tmp_path, name, width)
    config = StudentConfig.model_validate({"name": name, "width": width, "weights": path})
    published = torch.load(path, weights_only=True)
    state = build_student(config, 200, normalize=False).backbone.state_dict()
    assert set(state) == {key for key in published if not key.startswith("classifier.")}
    assert all(torch.equal(value, published[key]) for key, value in state.items())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width"), PUBLISHED)
def test_every_published_width_loads(tmp_path: Path, name: str, width: float) -> None:
    backbone = BACKBONES[name](width)
    load_published(backbone, _file(tmp_path, name, width))
    assert torch.equal(next(backbone.parameters()), next(iter(_random_state(name, width).values())))


def test_another_width_is_named_with_the_one_configured(tmp_path: Path) -> None:
    path = _file(tmp_path, "mobilenet", 0.5)
    with pytest.raises(UserError, match=r"has width 0\.5, but student\.width gives 0\.4"):
        load_published(mobilenet(0.4), path)


def test_the_other_architecture_is_named(tmp_path: Path) -> None:
    path = _file(tmp_path, "dynamic_mobilenet", 0.4)
    with pytest.raises(UserError, match=r"holds a dynamic_mobilenet, but student\.name is mobilenet"):
        load_published(mobilenet(0.4), path)


def _without_a_layer(state: dict[str, Tensor]) -> None:
    del state["features.3.block.1.1.running_var"]


def _with_a_longer_kernel(state: dict[str, Tensor]) -> None:
    state["features.3.block.1.0.weight"] = torch.zeros(32, 1, 5, 5)


def _with_a_layer_more(state: dict[str, Tensor]) -> None:
    state["features.17.0.weight"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without_a_layer, r"mn04: features\.3\.block\.1\.1\.running_var, of shape \[32\], is missing"),
        (_with_a_longer_kernel, r"\[32, 1, 3, 3\], has shape \[32, 1, 5, 5\]"),
        (_with_a_layer_more, r"it holds features\.17\.0\.weight"),
    ],
)
def test_changed_layers_are_refused_and_nothing_is_loaded(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], sentence: str
) -> None:
    state = _random_state("mobilenet", 0.4)
    change(state)
    torch.save(state, tmp_path / "mn.pt")
    backbone = mobilenet(0.4)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match=sentence):
        load_published(backbone, tmp_path / "mn.pt")
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


class _Code:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    torch.save({"features.16.0.weight": _Code(tmp_path / "executed")}, tmp_path / "mn.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Code(tmp_path / "executed")))
    for name in ("mn.pt", "bare.pt"):
        with pytest.raises(UserError, match="pickled code, which is never executed"):
            load_published(mobilenet(0.4), tmp_path / name)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({"fc.weight": torch.zeros(3)}, "neither a MobileNet nor a dynamic MobileNet"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: object, sentence: str) -> None:
    torch.save(content, tmp_path / "mn.pt")
    with pytest.raises(UserError, match=sentence):
        load_published(mobilenet(0.4), tmp_path / "mn.pt")


def test_no_file_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"cannot read student.weights {tmp_path / 'none.pt'}")):
        load_published(mobilenet(0.4), tmp_path / "none.pt")
    whole = _file(tmp_path, "mobilenet", 0.4).read_bytes()
    for name, part in (("cut.pt", whole[: len(whole) // 2]), ("empty.pt", b""), ("text.pt", b"<html>")):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(UserError, match=name):
            load_published(mobilenet(0.4), tmp_path / name)


def test_rebuilt_from_a_checkpoint_the_file_may_be_gone(tmp_path: Path) -> None:
    path = _file(tmp_path, "mobilenet", 0.4)
    config = StudentConfig(width=0.4, weights=path)
    student = build_student(config, 8, normalize=True)
    path.unlink()
    again = build_student(config, 8, normalize=True, state=student.state_dict())
    assert all(torch.equal(v, student.state_dict()[key]) for key, v in again.state_dict().items())
