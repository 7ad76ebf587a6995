"""A folder of files as they came from elsewhere, kept below a size; the least recently used goes first.

Several processes may use one folder. What is in it is whole: files appear by a rename.
"""

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from etude.errors import StorageError
from etude.storage.files import Files

KEEP = 0.9  # of the size, after making room: the folder is then not read again for every file
STALE_S = 3600.0  # a temporary file this old was left by a process that was killed
T = TypeVar("T")
log = logging.getLogger(__name__)


class DiskCache:
    """Files of together at most `max_bytes` below `folder`, found again by their keys.

    A file's name is a hash of its key alone, so that no key can name a place outside.
    """

    def __init__(self, folder: Path, max_bytes: float) -> None:
        self.folder = folder
        self.max_bytes = int(max_bytes)
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
            self._write(path, lambda to: to.write_bytes(data))
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning("%s cannot be written (%s): nothing is kept there", self.folder, error.strerror)
        self._warned = True

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / name[:2] / name

    def open(self, files: Files, path: str) -> pa.NativeFile:
        """A file of a storage, memory-mapped; from S3 it is fetched once, also by processes at once.

        A file that cannot be kept is read into memory. Raises FileNotFoundError if there is none.
        """
        if files.local:
            return files.open(path)
        version, n_bytes = files.version(path)
        if n_bytes > self.max_bytes:
            return files.open(path)
        cached = self._path(f"{files.address(path)} {version}")
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with self._alone(f"{cached.parent.name}.lock"):
                with suppress(FileNotFoundError):  # others may make it go at any moment
                    opened = pa.memory_map(str(cached))
                    with suppress(OSError):
                        os.utime(cached)
                    return opened
                return self._write(cached, lambda to: _fetch(files, path, n_bytes, to))
        except OSError as error:
            if isinstance(error, StorageError | FileNotFoundError):
                raise
            self._warn(error)
            return files.open(path)

    def _write(self, path: Path, fill: Callable[[Path], T]) -> T:
        """Let `fill` make a file, and keep it; returns what `fill` does."""
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".")
        os.close(descriptor)
        temporary = Path(name)
        try:
            made = fill(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            with self._alone("bytes") as count:
                self._make_room(count, temporary.stat().st_size)
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return made

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
    def _alone(self, name: str) -> Iterator[int]:
        """A file of the folder, open, and no other process at it."""
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


def _fetch(files: Files, path: str, n_bytes: int, to: Path) -> pa.NativeFile:
    """Download, and open at once: it can be read though others make it go again."""
    files.download(path, to)
    if to.stat().st_size != n_bytes:
        raise StorageError(f"{files.address(path)} came short or was replaced meanwhile: try again")
    return pa.memory_map(str(to))
