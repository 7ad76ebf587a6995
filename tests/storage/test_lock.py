"""A place is held by one, and by another only after the first let go, or died."""

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.storage import lease
from etude.storage.files import Files
from etude.storage.lock import Lock, held
from tests.support.s3_server import address, s3_faults

HOLDER = """
import sys, time
from etude.storage import lease
from etude.storage.files import Files
from etude.storage.lock import Lock
lease.RENEW_S = 0.3
kept = Lock(Files(sys.argv[1]), "the run")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick, but a busy machine may stand still for a second, and servers tell time in whole ones."""
    for name, seconds in (("RENEW_S", 0.3), ("STALE_S", 9.0), ("LOST_S", 6.0)):
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "folder":
        return Files(tmp_path / "run")
    return Files(address(request.getfixturevalue("s3_port"), uuid.uuid4().hex))


@contextmanager
def holder(place: Files) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the place."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, place.root], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_second_is_told_of_the_first(place: Files) -> None:
    with held(place, "the run x"):
        with pytest.raises(
            UserError, match=r"at work on the run x \(on .+, since 20.+\+00:00\): wait for it"
        ):
            Lock(place, "the run x")
        with held(place.at("other"), "the run y"):
            pass
    with held(place, "the run x"):
        pass


def test_it_is_held_while_its_process_lives_and_taken_over_after_a_kill(place: Files) -> None:
    with holder(place) as process:
        until = time.monotonic() + (1 if place.local else lease.STALE_S + 2)
        while time.monotonic() < until:
            with pytest.raises(UserError, match="another run is at work"):
                Lock(place, "the run")
            time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        for _ in range(200):
            try:
                taken = Lock(place, "the run")
                break
            except UserError:
                assert not place.local, "the system frees it at once"
                time.sleep(0.1)
        else:
            pytest.fail("a dead process holds it for ever")
    with pytest.raises(UserError, match="another run is at work"):
        Lock(place, "the run")
    taken.release()


def test_it_is_taken_and_kept_through_lost_answers(s3_port: int, pauses: list[float]) -> None:
    with s3_faults(s3_port, seed=3) as proxy:
        place = Files(address(proxy.port, uuid.uuid4().hex))
        proxy.share = 0.4
        for _ in range(8):
            with held(place, "the run"):
                pass
        with held(place, "the run") as mine:
            time.sleep(lease.LOST_S + 2)
            mine.check()
        assert proxy.counts["lost"] > 2, proxy.counts


@pytest.mark.parametrize("fault", ["taken", "unreachable"])
def test_who_loses_it_stops(s3_port: int, fault: str, pauses: list[float]) -> None:
    with s3_faults(s3_port) as proxy:
        place = Files(address(proxy.port, uuid.uuid4().hex))
        with pytest.raises(UserError, match="could not be held"), held(place, "the run"):
            if fault == "taken":
                place.write("lock", b"somebody else")
            else:
                proxy.refuse = True
            time.sleep(100)
            pytest.fail("it was never told")
        if fault == "taken":
            assert place.read("lock") == b"somebody else"
        else:
            assert proxy.counts["503"] > 0


def test_who_slept_for_long_knows_that_it_may_be_lost(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped for a minute goes on at once, and its thread only at its next turn."""
    monkeypatch.setattr(lease.Lease, "_keep", lambda held: None)
    place = Files(address(s3_port, uuid.uuid4().hex))
    with held(place, "the run") as mine:
        mine.check()
        time.sleep(lease.STALE_S + 1.2)  # servers tell time in whole seconds
        other = Lock(place, "the run")
        with pytest.raises(UserError, match="could not be held"):
            mine.check()
    with pytest.raises(UserError, match="another run is at work"):  # the first let go of nothing
        Lock(place, "the run")
    other.release()
