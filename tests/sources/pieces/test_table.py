"""Tables as they are found: with spaces, marks, holes and broken lines."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etude.errors import UserError
from etude.sources.described import PassedOver
from etude.sources.pieces.table import OUTSIDE_SCALE, UNREADABLE, ratings, rows_of


def test_names_and_values_lose_the_spaces_around_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffid, a ,"b, c"\r\n1, x,"y, z"\r\n\r\n2\r\n3,4,5,6\r\n'.encode())
    rows = list(rows_of(path, ("id", "a", "b, c")))
    assert [row for _, row in rows] == [
        {"id": "1", "a": "x", "b, c": "y, z"},
        {"id": "2", "a": "", "b, c": ""},
        {"id": "3", "a": "4", "b, c": "5"},
    ]
    assert rows[1][0] == "t.csv, line 4"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text('id,a\n\r"\0 1', max_size=60).map(str.encode))
def test_any_bytes_are_rows_or_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    try:
        rows = list(rows_of(path, ("id", "a")))
    except UserError as error:
        assert "t.csv" in str(error)
    else:
        assert all(isinstance(value, str) for _, row in rows for value in row.values())


def test_a_table_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*t\.csv"):
        list(rows_of(tmp_path / "t.csv", ("id",)))
    (tmp_path / "t.csv").write_text(f"id\n{'x' * 200_000}\n")
    with pytest.raises(UserError, match=r"t\.csv is no table"):
        list(rows_of(tmp_path / "t.csv", ("id",)))


@given(low=st.floats(-10, 10), width=st.floats(0.5, 10), share=st.floats(0, 1), other=st.floats(0, 1))
def test_a_scale_maps_its_ends_to_the_ends(low: float, width: float, share: float, other: float) -> None:
    passed_over = PassedOver()
    row = {"v": repr(low + share * width), "a": repr(low + other * width)}
    found = ratings(row, ("v", "a"), (low, low + width), "here", passed_over)
    if found is not None:  # rounding may leave an end
        assert found == pytest.approx((2 * share - 1, other), abs=1e-6)
    assert (
        ratings({"v": repr(low - 0.1), "a": "0"}, ("v", "a"), (low, low + width), "here", passed_over) is None
    )
    assert any(reason.startswith(OUTSIDE_SCALE) for reason in passed_over.counts)


@pytest.mark.parametrize("value", ["", "nan", "inf", "five", "1,5"])
def test_what_is_no_number_is_counted(value: str) -> None:
    passed_over = PassedOver()
    assert ratings({"v": value, "a": "5"}, ("v", "a"), (1, 9), "here", passed_over) is None
    assert passed_over.counts == {UNREADABLE: 1}
