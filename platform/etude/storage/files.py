"""Whole files below a root: a folder, or a part of an S3 bucket such as `s3://bucket/etude`."""

import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from etude.errors import UserError
from etude.storage.folder import Folder

if TYPE_CHECKING:
    from etude.storage.s3 import Bucket

T = TypeVar("T")
THREADS = 16  # an object store makes one wait for every file, so many are under way at once


class Files:
    """Files by their path below the root; a file is replaced whole or not at all.

    It travels to other processes by its root. What S3 refuses or cannot do, after trying again, is a
    StorageError; a disk raises OSError.
    """

    def __init__(self, root: "str | Path | Files") -> None:
        """Writes nothing. Raises UserError for an address that is no folder and no `s3://`."""
        self.place: "Folder | Bucket"  # noqa: UP037
        text = str(root)
        if "://" in text:
            from etude.storage.s3 import Bucket, S3Address  # slow to import: a folder need not wait for it

            address = S3Address.parse(text)
            self.place, self.root = Bucket.at(address), str(address)
        else:
            folder = Path(text).expanduser().absolute()
            self.place, self.root = Folder(folder), str(folder)

    def __reduce__(self) -> tuple[type["Files"], tuple[str]]:
        return Files, (self.root,)

    def __str__(self) -> str:
        return self.root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Files) and other.root == self.root

    def __hash__(self) -> int:
        return hash(self.root)

    @property
    def local(self) -> bool:
        """Whether this is a folder, of this machine or one that it shares."""
        return isinstance(self.place, Folder)

    @property
    def name(self) -> str:
        """The last part of the root's path."""
        return self.place.path.rsplit("/", 1)[-1]

    def at(self, folder: str) -> "Files":
        """The files below a folder."""
        return Files(self.address(folder))

    def address(self, path: str) -> str:
        """What `Files` and a reader of messages know a file or folder below the root by."""
        return self.place.address(path)

    @property
    def parent(self) -> "Files":
        """The files of the folder around this one."""
        return Files(self.place.address(".."))

    def read(self, path: str) -> bytes | None:
        """A file's content, None if there is no such file."""
        return self.place.read(path)

    def read_all(self, paths: Iterable[str]) -> dict[str, bytes]:
        """The contents of those files that there are."""
        contents = self._map(lambda path: (path, self.read(path)), paths)
        return {path: data for path, data in contents if data is not None}

    def open(self, path: str) -> pa.NativeFile:
        """A file to read from here and there; of a folder memory-mapped. Raises FileNotFoundError."""
        if isinstance(self.place, Folder):
            return pa.memory_map(str(self.place.file(path)))
        data = self.read(path)
        if data is None:
            raise FileNotFoundError(self.address(path))
        return pa.BufferReader(data)

    def write(self, path: str, data: "bytes | memoryview | pa.Buffer") -> None:
        """Put a file there, durable and at once."""
        self.place.write(path, data)

    def append(self, path: str, data: bytes) -> None:
        """Add to the end of a file, durably; on S3 the whole file is written anew, so keep it small."""
        self.place.append(path, data)

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.place.stat(path) is not None

    def identity(self) -> str:
        """The folder's name, and what tells it from one of that name elsewhere; made when first asked for.

        For whoever holds the folder alone: two that ask first at the same moment might be told two.
        """
        found = self.read("id")
        if found is None:
            found = uuid.uuid4().hex.encode()
            self.write("id", found)
        return f"{self.name}-{found.decode()}"

    def delete_all(self, paths: Iterable[str]) -> None:
        """Remove those of the files that there are."""
        self.place.delete_all([*paths])

    def list(self, folder: str, *suffixes: str) -> list[str]:
        """Sorted paths of the files below a folder, however deep, that end in one of the suffixes."""
        return sorted(path for path in self.place.paths(folder) if path.endswith(suffixes))

    def free_bytes(self) -> int | None:
        """Room left on a disk, None on S3."""
        return self.place.free_bytes()

    def arrow(self) -> tuple[fs.FileSystem | None, str]:
        """The same place for pyarrow, and so for Ray: a filesystem, None for a folder, and a path."""
        return self.place.arrow()

    def version(self, path: str) -> tuple[str, int]:
        """What changes with a file's content, and its bytes. Raises FileNotFoundError."""
        found = self.place.stat(path)
        if found is None:
            raise FileNotFoundError(self.address(path))
        return found

    def download(self, path: str, to: Path) -> None:
        """Copy a file to a path on this machine, not durably. Raises FileNotFoundError."""
        self.place.download(path, to)

    def _map(self, work: Callable[[str], T], paths: Iterable[str]) -> Sequence[T]:
        if self.local:  # threads would cost more than the disk makes one wait
            return [work(path) for path in paths]
        with ThreadPoolExecutor(THREADS) as pool:
            return [*pool.map(work, paths)]


Place = str | Path | Files  # what `Files` takes


def normalised(root: str) -> str:
    """The root as `Files` will have it, without asking whether it is there. Raises UserError as that does."""
    if "://" not in root:
        return str(Path(root).expanduser().absolute())
    from etude.storage.s3 import S3Address

    return str(S3Address.parse(root))


def split(path: str | Path) -> tuple[Files, str]:
    """The folder of a file, and its name in there. Raises UserError if no file is named."""
    text = normalised(str(path))
    whole, mark, options = text.partition("?") if "://" in text else (text, "", "")
    folder, _, name = whole.rpartition("/")
    if not name or folder.endswith(":/"):
        raise UserError(f"{text} names no file: give its whole path")
    return Files((folder or "/") + mark + options), unquote(name) if "://" in text else name
