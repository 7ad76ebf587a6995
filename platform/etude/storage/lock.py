"""One at a time: whoever holds a place alone, and everyone else told who that is.

In a folder the system's own lock holds it, which ends with the process. On S3 it is a lease, which ends a
minute after it was last renewed.
"""

import contextlib
import fcntl
import json
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from etude.errors import UserError
from etude.storage.files import Files
from etude.storage.folder import Folder

NAME = "lock"


class _Hold(Protocol):
    interrupts: bool  # the main thread, once it is lost

    @property
    def lost(self) -> bool: ...

    def take(self, me: Mapping[str, str]) -> dict[str, str] | None: ...

    def release(self) -> None: ...


class Lock:
    """A place held alone until `release`, or until this process ends."""

    def __init__(self, files: Files, what: str) -> None:
        """Raises UserError, which says `what` is held, if another holds it."""
        self._where = files.root
        self._held = _hold(files)
        me = {
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
            "owner": uuid.uuid4().hex,
        }
        other = self._held.take(me)
        if other is not None:
            raise UserError(
                f"another run is at work on {what} (on {other.get('host', 'another machine')}, since "
                f"{other.get('since', 'an unknown time')}): wait for it or stop it first"
            )

    def check(self) -> None:
        """Raises UserError if the place was lost, so that nothing more may be written."""
        if self._held.lost:
            raise UserError(
                f"{self._where} could not be held: its storage did not answer for long, or another run took "
                "it over; run the same command again, which goes on from what is there"
            )

    def release(self) -> None:
        """Let another have it."""
        self._held.release()

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Stop what the main thread does inside, as Ctrl-C would, and raise UserError, if it is lost."""
        self._held.interrupts = True
        try:
            self.check()
            yield
        except (KeyboardInterrupt, SystemExit):  # into which Ray Train turns the first
            self.check()
            raise
        finally:
            self._held.interrupts = False


@contextmanager
def held(files: Files, what: str) -> Iterator[Lock]:
    """Hold a place alone while the block runs. Raises UserError if another does, or if it is lost."""
    lock = Lock(files, what)
    try:
        with lock.guarding():
            yield lock
    finally:
        lock.release()


def _hold(files: Files) -> _Hold:
    if isinstance(files.place, Folder):
        return _Flock(files)
    from etude.storage.lease import Lease  # slow to import: a folder need not wait for it

    return Lease(files.place, NAME)


class _Flock:
    """The system's lock on a file of a folder."""

    lost: bool = False
    interrupts: bool = False

    def __init__(self, files: Files) -> None:
        folder = Path(files.root)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / NAME, "a+")  # noqa: SIM115
        except PermissionError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror}") from error

    def take(self, me: Mapping[str, str]) -> dict[str, str] | None:
        """None if it is held now, else who holds it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with self._file as file, contextlib.suppress(json.JSONDecodeError):
                file.seek(0)
                return dict(json.load(file))
            return {}
        self._file.truncate(0)
        json.dump(me, self._file)
        self._file.flush()
        return None

    def release(self) -> None:
        self._file.close()
