"""A takeover is whole however often it is cut off, and takes none of a member's figures with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.storage.files import Files
from etude.training.checkpoint import load_checkpoint, save_checkpoint
from etude.tuning.takeover import own_epochs, take_over


class CutError(Exception):
    """The driver was killed here."""


class Cutting(Files):
    """Files that take so many writes and then no more, as those of a killed process do."""

    def __init__(self, root: Path, writes: int) -> None:
        super().__init__(root)
        self.left = writes

    def write(self, path: str, data: bytes | memoryview) -> None:
        if not self.left:
            raise CutError
        self.left -= 1
        super().write(path, data)


def train(folder: Files, skill: float, first: int, last: int) -> None:
    """What training leaves of some epochs: a history that goes on from what is there."""
    history = load_checkpoint(folder.address(f"epoch-{first - 1:04d}.pt"))["history"] if first > 1 else []
    for epoch in range(first, last + 1):
        history = [*history, {"epoch": epoch, "skill": skill, "at_ms": 1000.0 * epoch + skill}]
        save_checkpoint(folder, epoch, {"history": history, "began": 0}, best=("best",))


def told(folder: Files) -> Iterator[tuple[float, float]]:
    return ((one["epoch"], one["skill"]) for one in own_epochs(folder))


@pytest.mark.parametrize("writes", range(4))
def test_one_that_was_cut_off_is_done_again(tmp_path: Path, writes: int) -> None:
    donor, member = Files(tmp_path / "donor"), Files(tmp_path / "member")
    train(donor, 0.9, 1, 4)
    train(member, 0.1, 1, 4)
    own = [(epoch, 0.1) for epoch in range(1, 5)]
    if writes < 3:
        with pytest.raises(CutError):
            take_over(donor, Cutting(tmp_path / "member", writes), 4)
        assert list(told(member)) == own
    for _ in range(2):
        take_over(donor, member, 4)
        assert member.list("", ".pt") == ["best.pt", "epoch-0004.pt"]
        for name in ("best.pt", "epoch-0004.pt"):
            assert member.read(name) == donor.read(name)
        assert list(told(member)) == own


def test_a_members_figures_are_its_own_whomever_it_took_over_from(tmp_path: Path) -> None:
    donor, member = Files(tmp_path / "donor"), Files(tmp_path / "member")
    assert list(told(member)) == []
    for first, skill in ((1, 0.1), (3, 0.2), (5, 0.3)):
        train(donor, 0.9, first, first + 1)
        train(member, skill, first, first + 1)
        if first < 5:
            take_over(donor, member, first + 1)
    assert list(told(member)) == [(1, 0.1), (2, 0.1), (3, 0.2), (4, 0.2), (5, 0.3), (6, 0.3)]
