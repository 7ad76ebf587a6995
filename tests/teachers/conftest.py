"""A CLAP to run: the stand-in, whose weights are random, made once a session."""

from pathlib import Path

import pytest

from etude.teachers.stand_in import write_stand_in


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in's three files."""
    folder = tmp_path_factory.mktemp("stand_in")
    write_stand_in(folder)
    return folder
