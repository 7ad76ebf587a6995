"""A configuration names where pieces come from."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from etude.sources.pieces import PieceSourceConfig, build_piece_source
from etude.sources.pieces.base import PieceSource

ADAPTER: TypeAdapter[PieceSourceConfig] = TypeAdapter(PieceSourceConfig)
SETS = ("labelled", "deam", "pmemo", "emopia", "vgmidi", "lakh", "maestro", "groove")


def test_each_set_is_chosen_by_its_name(tmp_path: Path) -> None:
    configs = [{"name": name, "path": str(tmp_path)} for name in SETS]
    sources: list[PieceSource] = [
        build_piece_source(ADAPTER.validate_python(config), tmp_path)
        for config in [*configs, {"name": "demo"}]
    ]
    assert [source.id.split("-")[0] for source in sources] == [*SETS, "demo"]
    other = ADAPTER.validate_python({"name": "deam", "path": str(tmp_path / "other")})
    assert build_piece_source(other, tmp_path).id != sources[1].id


def test_what_no_set_knows_is_refused(tmp_path: Path) -> None:
    for wrong in ({"name": "deam"}, {"name": "tape", "path": "x"}, {"name": "lakh", "path": "x", "limit": 0}):
        with pytest.raises(ValidationError):
            ADAPTER.validate_python(wrong)
