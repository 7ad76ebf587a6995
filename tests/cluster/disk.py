"""A disk of some kilobytes that fills up: a tmpfs in a mount namespace of its own."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DISK = Path("/mnt")  # only those in the namespace see something else there


@dataclass(frozen=True)
class Disk:
    """Processes started with `prefix` find the disk at `path`; everyone else at `seen`."""

    holder: int  # the process that keeps the namespace

    path = DISK

    @property
    def prefix(self) -> tuple[str, ...]:
        return "nsenter", "--mount", f"--target={self.holder}", "--"

    @property
    def seen(self) -> Path:
        return Path(f"/proc/{self.holder}/root{DISK}")

    def fill(self) -> None:
        fill(self.seen)

    def make_room(self) -> None:
        ballast(self.seen).unlink()


def ballast(folder: Path) -> Path:
    return folder / "another-program's"


def fill(folder: Path) -> None:
    """Write until there is really no space left."""
    with open(ballast(folder), "wb", buffering=0) as file:
        for size in (4096, 1):  # to the last byte
            with pytest.raises(OSError) as full:
                while True:
                    file.write(bytes(size))
            assert full.value.errno == errno.ENOSPC


@contextlib.contextmanager
def small_disk(kilobytes: int) -> Iterator[Disk]:
    """Mount it. The test is skipped where this machine does not let a process mount."""
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {DISK} && echo ready && exec cat"
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", mount],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        if not process.stdout.readline():
            pytest.skip(f"no right to mount a small disk here: {process.communicate()[1].decode().strip()}")
        yield Disk(process.pid)
        assert os.path.ismount(f"/proc/{process.pid}/root{DISK}")
    finally:
        process.communicate()
