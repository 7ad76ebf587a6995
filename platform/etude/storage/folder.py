"""Files in a folder of this machine, or one that several machines share."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import fs


class Folder:
    """A folder, which need not be there before something is written."""

    def __init__(self, base: Path) -> None:
        """Raises NotADirectoryError if it is a file."""
        if base.is_file():
            raise NotADirectoryError("it is a file")
        self._base = base

    @property
    def path(self) -> str:
        return str(self._base)

    def file(self, path: str) -> Path:
        """Where a file lies."""
        return self._base / path

    def address(self, path: str) -> str:
        return os.path.normpath(self._base / path)

    def read(self, path: str) -> bytes | None:
        try:
            return self.file(path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, data: "bytes | memoryview | pa.Buffer") -> None:
        """Under a temporary name, flushed and then renamed, so that a kill leaves the old or the new."""
        full = self.file(path)
        full.parent.mkdir(parents=True, exist_ok=True)
        temporary = f"{full}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, full)
            _keep_names(full.parent)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def append(self, path: str, data: bytes) -> None:
        full = self.file(path)
        full.parent.mkdir(parents=True, exist_ok=True)
        with open(full, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def stat(self, path: str) -> tuple[str, int] | None:
        """Time of the last change, and bytes."""
        try:
            found = self.file(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (str(found.st_mtime_ns), found.st_size) if stat.S_ISREG(found.st_mode) else None

    def paths(self, folder: str) -> Iterator[str]:
        """Every file below a folder."""
        for where, _, names in os.walk(self.file(folder)):
            for name in names:
                yield str((Path(where) / name).relative_to(self._base))

    def delete_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.file(path).unlink(missing_ok=True)

    def download(self, path: str, to: Path) -> None:
        shutil.copyfile(self.file(path), to)

    def free_bytes(self) -> int | None:
        base = self._base
        return shutil.disk_usage(next(path for path in (base, *base.parents) if path.exists())).free

    def arrow(self) -> tuple[fs.FileSystem | None, str]:
        return None, self.path


def _keep_names(folder: Path) -> None:
    """A renamed file survives a power cut only once its folder is on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
