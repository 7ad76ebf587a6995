"""Whoever waits for a run in other processes hears of every epoch."""

from pathlib import Path
from threading import Event

from etude.errors import StorageError
from etude.storage.files import Place
from etude.training import watch
from etude.training.checkpoint import State, load_latest, save_checkpoint
from etude.training.watch import watched


def write(folder: Path, epoch: int) -> None:
    history = [{"train/loss": 1 / e, "score": 0.1 * e, "seconds": 70.0} for e in range(1, epoch + 1)]
    save_checkpoint(folder, epoch, {"epoch": epoch, "history": history, "best": 0.1 * epoch}, best=["best"])


def test_only_what_is_new_is_told(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    write(tmp_path, 1)  # of a run that goes on
    lines: list[str] = []
    with watched(tmp_path, "melody", 3, "skill", lines.append):
        write(tmp_path, 2)
    assert len(lines) == 1
    assert lines[0].startswith(
        "melody: epoch 2/3  loss 0.5000, validation skill 0.200 (best 0.200), 1 min 10 s left"
    )
    with watched(tmp_path, "melody", 3, "skill", lines.append):
        write(tmp_path, 3)
    assert lines[1].startswith("melody: epoch 3/3")
    assert "left" not in lines[1]


def test_storage_out_of_reach_for_a_moment_ends_no_watch(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    refused, there, lines = Event(), Event(), list[str]()

    def away(folder: Place) -> State | None:
        if there.is_set():
            return load_latest(folder)
        refused.set()
        raise StorageError("busy")

    monkeypatch.setattr(watch, "load_latest", away)
    with watched(tmp_path, "melody", 3, "skill", lines.append):
        write(tmp_path, 1)
        assert refused.wait(10)
        there.set()
    assert [line.split("  ")[0] for line in lines] == ["melody: epoch 1/3"]
