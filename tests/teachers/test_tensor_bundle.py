"""Checkpoints of TensorFlow are read whole, or refused in words."""

from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.teachers.tensor_bundle import read_tensor_bundle

_FOLDER = Path(str(distribution("musicnn").locate_file("musicnn")))


def _checkpoint(model: str) -> tuple[bytes, bytes]:
    folder = _FOLDER / model
    return (folder / ".index").read_bytes(), (folder / ".data-00000-of-00001").read_bytes()


_INDEX, _DATA = _checkpoint("MSD_musicnn")


@pytest.mark.parametrize(("model", "n_variables"), [("MSD_musicnn", 150), ("MTT_vgg", 86)])
def test_every_variable_is_read(model: str, n_variables: int) -> None:
    index, data = _checkpoint(model)
    variables = read_tensor_bundle(index, data)
    assert len(variables) == n_variables
    assert sum(value.nbytes for value in variables.values()) == len(data)
    assert all(np.isfinite(value).all() for value in variables.values())


def test_shapes_are_those_of_the_network() -> None:
    variables = read_tensor_bundle(_INDEX, _DATA)
    assert variables["conv2d/kernel"].shape == (7, 38, 1, 204)
    assert variables["dense/kernel"].shape == (1506, 200)
    assert variables["beta1_power"].shape == ()


def test_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match="not the index of a TensorFlow V2 checkpoint"):
        read_tensor_bundle(_DATA, _DATA)


def test_missing_values_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit its place"):
        read_tensor_bundle(_INDEX, _DATA[:-4])


def test_other_types_are_refused() -> None:
    # In the first entry: the type, one dimension of 1, and the end of it all.
    first = _INDEX.index(bytes.fromhex("0801120412020801 2804"))
    as_float64 = _INDEX[: first + 1] + b"\x02" + _INDEX[first + 2 :]
    with pytest.raises(ValueError, match="has the TensorFlow type 2"):
        read_tensor_bundle(as_float64, _DATA)


@given(place=st.integers(0, len(_INDEX) - 1), value=st.integers(0, 255))
def test_a_changed_byte_never_ends_in_another_error(place: int, value: int) -> None:
    changed = _INDEX[:place] + bytes([value]) + _INDEX[place + 1 :]
    try:
        variables = read_tensor_bundle(changed, _DATA)
    except ValueError as error:
        assert str(error)
    else:
        assert all(variable.dtype == np.float32 for variable in variables.values())
