"""Shards of prepared tracks that readers can trust, in a folder or on S3.

    FORMAT                                written before anything else
    tracks/<source>.arrows                the catalogue of each source
    features/<recipe>/<shard>.arrow       one row per track: log-mel, each shared frame once
    targets/<teacher>/<segments>/<shard>.arrow
    commits/<part>/<shard>.json           what readers trust: the shards that count, with their tracks
    commits/<part>/<hash>.arrow           the same of many shards, once `compact` has put them together
    quarantine/<recipe>/<track>.json      tracks whose audio is at fault, with the reason
    quarantine/targets/<teacher>/...      tracks of which this teacher can make nothing
    locks/<part>/lock                     who prepares that part now

A shard is written under a temporary name, flushed, renamed and only then committed, so a reader sees all
of it or nothing. Its name is a hash of its part and its tracks: writing the same tracks again replaces the
same file, and a track that stands in two shards is read from the first of them by name. The file of a
commit record goes only after another that holds the record was written.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from etude.audio.recipe import FeatureRecipe
from etude.data.catalogue import Catalogue
from etude.errors import UserError
from etude.sources.base import Track
from etude.storage.cache import DiskCache
from etude.storage.files import Files
from etude.storage.lock import Lock, held

FORMAT = "2"
COMPACT_RECORDS = 1000  # so many commit records in files of their own are put together
COMMITS = pa.schema([("shard", pa.string()), ("bytes", pa.int64()), ("tracks", pa.list_(pa.string()))])


@dataclass(frozen=True)
class Quarantined:
    """Why a track's audio cannot be used."""

    track_id: str
    uri: str
    title: str
    stage: str  # fetch, decode or teacher: the step that found the fault
    reason: str
    attempts: int = 1
    made_from: str = ""  # a hash of what a step was given beside the audio


def features_part(recipe: FeatureRecipe) -> str:
    """Where features made by a recipe lie."""
    return f"features/{recipe.id}"


def targets_part(teacher_id: str, recipe: FeatureRecipe) -> str:
    """Where a teacher's targets lie: they depend on how audio is decoded and cut, not on the mel."""
    cut = recipe.model_dump(include={"decoder", "sample_rate", "segment_samples", "hop_samples", "tail"})
    digest = hashlib.sha256(json.dumps(cut, sort_keys=True).encode()).hexdigest()[:12]
    return f"targets/{teacher_id}/{digest}"


class Store:
    """A folder, or a place on S3, such as `s3://bucket/etude/store`, with a cache for what is read there."""

    def __init__(self, root: str | Path | Files, cache: DiskCache | None = None) -> None:
        """Writes nothing. Raises UserError if `root` holds a store of another format or cannot be used."""
        self.root = str(root)
        self._cache = cache
        try:
            self._files = Files(root)
            found = self._files.read("FORMAT")
        except (OSError, ValueError) as error:
            raise UserError(f"cannot use {self.root} as a store: {error}") from error
        self.format = None if found is None else found.decode(errors="replace")
        if self.format not in (None, FORMAT):
            raise UserError(
                f"{self.root} is a store of format {self.format!r}, this version reads {FORMAT!r}: "
                "choose another folder with --home"
            )

    # -- catalogue ------------------------------------------------------------------------------------

    def write_catalogue(self, source_id: str, tracks: Iterable[Track]) -> None:
        """Replace what is known of a source's tracks."""
        catalogue = tracks if isinstance(tracks, Catalogue) else Catalogue.of(tracks)
        self._write(f"tracks/{source_id}.arrows", catalogue.data)

    def read_catalogue(self, source_id: str) -> Catalogue:
        """The tracks of a source as last listed. Raises UserError if it was never listed."""
        data = self._files.read(f"tracks/{source_id}.arrows")
        if data is None:
            raise UserError(f"{self.root} knows no tracks of {source_id}: run jobs/prepare_audio.py first")
        return Catalogue(pa.py_buffer(data))

    # -- shards ---------------------------------------------------------------------------------------

    def write_shard(self, part: str, table: pa.Table) -> str:
        """Write and commit rows that have a `track_id` column; returns the shard's name."""
        ids = sorted(table.column("track_id").to_pylist())
        name = _hash(part, *ids)
        sink = pa.BufferOutputStream()
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        data = sink.getvalue()
        self._write(f"{part}/{name}.arrow", data)
        commit = {"shard": name, "bytes": data.size, "tracks": ids}
        self._write(f"commits/{part}/{name}.json", json.dumps(commit).encode())
        return name

    def commits(self, part: str) -> pa.Table:
        """Committed rows as `track_id` and `shard`, by name of the shard; a track may stand in two."""
        records = self._together(self._commit_files(part))
        tracks = records["tracks"].combine_chunks()
        shards = records["shard"].take(pc.list_parent_indices(tracks))
        return pa.table({"track_id": pc.list_flatten(tracks), "shard": shards})

    def committed(self, part: str) -> dict[str, str]:
        """Track id to the name of the shard that holds it."""
        rows = self.commits(part)
        where: dict[str, str] = {}
        for track_id, shard in zip(rows["track_id"].to_pylist(), rows["shard"].to_pylist(), strict=True):
            where.setdefault(track_id, shard)
        return where

    def compact(self, part: str) -> bool:
        """Put commit records together in one file if there are many; says whether it did.

        Others may write or compact meanwhile: at worst some records stand in two files for a time.
        """
        if len(self._files.list(f"commits/{part}", ".json")) < COMPACT_RECORDS:
            return False
        files = self._commit_files(part)
        records = self._together(files)
        sink = pa.BufferOutputStream()
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        with pyarrow.ipc.new_file(sink, COMMITS, options=options) as writer:
            writer.write_table(records)
        path = f"commits/{part}/{_hash(*records['shard'].to_pylist())}.arrow"
        self._write(path, sink.getvalue())
        self._files.delete_all(files.keys() - {path})
        return True

    def read_shard(self, part: str, name: str) -> pa.Table:
        """A committed shard's rows; in a folder or a cache memory-mapped, so only what is used is read."""
        path = f"{part}/{name}.arrow"
        opened = self._files.open(path) if self._cache is None else self._cache.open(self._files, path)
        with _whole(self._files.address(path), f"it and {self._files.address(f'commits/{part}')}"):
            return pyarrow.ipc.open_file(opened).read_all()

    def parts(self, kind: str) -> list[str]:
        """Committed parts of one kind, `features` or `targets`."""
        files = self._files.list(f"commits/{kind}", ".json", ".arrow")
        found = {path.rsplit("/", 1)[0] for path in files}
        return sorted(part.removeprefix("commits/") for part in found)

    def _commit_files(self, part: str) -> dict[str, bytes]:
        before: list[str] = []
        while True:
            paths = self._files.list(f"commits/{part}", ".json", ".arrow")
            files = self._files.read_all(paths)
            missing = [path for path in paths if path not in files]
            if not missing:
                return files
            if missing == before:
                path = self._files.address(missing[0])
                raise UserError(f"{path} is listed and cannot be read: remove it and prepare again")
            # One was put together with others after it was listed: where it is now, a new list tells.
            before = missing

    def _together(self, files: Mapping[str, bytes]) -> pa.Table:
        """The records in files of commits, each once, by name of the shard."""
        single, many = [], []
        for path, data in files.items():
            with _whole(self._files.address(path)):
                if path.endswith(".json"):
                    single.append(json.loads(data))
                else:
                    many.append(pyarrow.ipc.open_file(data).read_all())
        records = pa.concat_tables([pa.Table.from_pylist(single, schema=COMMITS), *many])
        _, first = np.unique(records["shard"].to_numpy(), return_index=True)
        return records.take(first).combine_chunks()

    # -- quarantine -----------------------------------------------------------------------------------

    def write_quarantine(self, place: str, rows: Iterable[Quarantined]) -> None:
        """Record tracks at fault, under a recipe's id or a teacher's part; no writer disturbs another."""
        for row in rows:
            self._write(
                f"quarantine/{place}/{row.track_id}.json",
                json.dumps(dataclasses.asdict(row), ensure_ascii=True).encode(),
            )

    def quarantined(self, place: str) -> dict[str, Quarantined]:
        """Track id to why it is in quarantine."""
        files = self._files.read_all(self._files.list(f"quarantine/{place}", ".json"))
        rows = {}
        for path, data in files.items():
            with _whole(self._files.address(path)):
                row = Quarantined(**json.loads(data))
            rows[row.track_id] = row
        return rows

    def release(self, place: str, track_ids: Iterable[str]) -> None:
        """Take tracks out of quarantine."""
        self._files.delete_all(f"quarantine/{place}/{track_id}.json" for track_id in track_ids)

    # -- who writes -----------------------------------------------------------------------------------

    def held(self, part: str) -> AbstractContextManager[Lock]:
        """Prepare a part alone. Raises UserError if another run does, or if the store can be held no more."""
        return held(self._files.at(f"locks/{part}"), f"{part} in {self.root}")

    # -- files ----------------------------------------------------------------------------------------

    def free_bytes(self) -> int | None:
        """Room left on a disk, None on S3."""
        return self._files.free_bytes()

    def _write(self, path: str, data: bytes | pa.Buffer) -> None:
        if self.format is None:
            try:
                self._files.write("FORMAT", FORMAT.encode())
            except PermissionError as error:
                raise UserError(f"cannot use {self.root} as a store: {error}") from error
            self.format = FORMAT
        self._files.write(path, data)


@contextmanager
def _whole(path: str, remove: str = "it") -> Iterator[None]:
    """Turns what a damaged file does to its reader into one sentence, a UserError."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove {remove} and prepare again, which makes anew what lacks"
        ) from error


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
