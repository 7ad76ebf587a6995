"""A folder of audio files as they came, kept below a size; the least recently used goes first.

Several processes may use one folder. What is in it is whole: files appear by a rename.
"""

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEEP = 0.9  # of the size, after making room: the folder is then not read again for every file
STALE_S = 3600.0  # a temporary file this old was left by a process that was killed
log = logging.getLogger(__name__)


class AudioCache:
    """Files of together at most `max_bytes` below `folder`, found again by their keys.

    A file's name is a hash of its key alone, so that no key can name a place outside.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._warned = False

    def get(self, key: str) -> bytes | None:
        """The file of this key, now the most recently used; None if it is not here."""
        path = self._path(key)
        with suppress(OSError):  # a folder that others filled may be read all the same
            os.utime(path)
        try:
            return path.read_bytes()
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Keep a file, if it is no larger than the whole cache and the disk takes it."""
        if len(data) > self.max_bytes:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(path, data)
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s): audio is not kept there", self.folder, error.strerror)
            self._warned = True

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / name

    def _write(self, path: Path, data: bytes) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with self._locked() as count:
                self._make_room(count, len(data))
                os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _make_room(self, count: int, n_bytes: int) -> None:
        """Count `n_bytes` more in the open file `count`, and remove files if they are too many.

        The count is raised before a file appears: after a kill it is too high, never too low, and too high
        a count only makes the folder be read earlier, which puts it right.
        """
        recorded = os.read(count, 32).strip()
        total = int(recorded) + n_bytes if recorded.isdigit() else self.max_bytes + 1
        if total > self.max_bytes:
            total = self._remove(self.max_bytes - n_bytes) + n_bytes
        os.lseek(count, 0, os.SEEK_SET)
        os.write(count, b"%-31d\n" % total)

    def _remove(self, allowed: int) -> int:
        """Remove the least recently used until at most 0.9 of `allowed` bytes are left, and say how many."""
        files = []
        for path in self.folder.glob("??/*"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if not path.name.startswith("."):
                files.append((stat.st_mtime_ns, stat.st_size, path))
            elif time.time() - stat.st_mtime > STALE_S:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in files)
        if total <= allowed:
            return total
        for _, size, path in sorted(files):
            if total <= KEEP * allowed:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file that holds the count of bytes, open, and no other process at it."""
        descriptor = os.open(self.folder / "bytes", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)
