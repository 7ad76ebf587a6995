"""Whole files below a root on any pyarrow filesystem: a local folder, or a URI such as `s3://bucket/etude`."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from pyarrow import fs

T = TypeVar("T")
THREADS = 16  # an object store makes one wait for every file, so many are under way at once


class Files:
    """Files by their path below the root; a file is replaced whole or not at all."""

    def __init__(self, root: str) -> None:
        """Writes nothing. Raises OSError or ValueError if pyarrow cannot use `root`."""
        if "://" in root:
            self._fs, self.base = fs.FileSystem.from_uri(root)
        else:
            self._fs, self.base = fs.LocalFileSystem(), str(Path(root).expanduser().absolute())
        self.local = isinstance(self._fs, fs.LocalFileSystem)
        if self._fs.get_file_info(self.base).type == fs.FileType.File:
            raise NotADirectoryError("it is a file")

    def read(self, path: str) -> bytes | None:
        """A file's content, None if there is no such file."""
        full = f"{self.base}/{path}"
        try:
            if self.local:
                return Path(full).read_bytes()
            with self._fs.open_input_stream(full) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The contents of those files that there are."""
        contents = self._map(lambda path: (path, self.read(path)), paths)
        return {path: data for path, data in contents if data is not None}

    def open(self, path: str) -> pa.NativeFile:
        """A file to read from here and there; on a local disk memory-mapped."""
        full = f"{self.base}/{path}"
        return pa.memory_map(full) if self.local else self._fs.open_input_file(full)

    def write(self, path: str, data: bytes | pa.Buffer) -> None:
        """Put a file there, durable and at once."""
        full = f"{self.base}/{path}"
        self._fs.create_dir(full.rsplit("/", 1)[0], recursive=True)
        if not self.local:  # an object store shows an object only once it is whole
            with self._fs.open_output_stream(full) as stream:
                stream.write(data)
            return
        temporary = f"{full}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, full)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def delete_all(self, paths: Iterable[str]) -> None:
        """Remove those of the files that there are."""
        self._map(self._delete, paths)

    def list(self, folder: str, *suffixes: str) -> list[str]:
        """Sorted paths of the files below a folder, however deep, that end in one of the suffixes."""
        selector = fs.FileSelector(f"{self.base}/{folder}", recursive=True, allow_not_found=True)
        paths = [info.path for info in self._fs.get_file_info(selector) if info.path.endswith(suffixes)]
        return sorted(path.removeprefix(self.base + "/") for path in paths)

    def free_bytes(self) -> int | None:
        """Room left on a local disk, None elsewhere."""
        if not self.local:
            return None
        base = Path(self.base)
        return shutil.disk_usage(next(path for path in (base, *base.parents) if path.exists())).free

    def _map(self, work: Callable[[str], T], paths: Iterable[str]) -> Sequence[T]:
        if self.local:  # threads would cost more than the disk makes one wait
            return [work(path) for path in paths]
        with ThreadPoolExecutor(THREADS) as pool:
            return [*pool.map(work, paths)]

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(f"{self.base}/{path}")
