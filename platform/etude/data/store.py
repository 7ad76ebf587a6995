"""Shards of prepared tracks that readers can trust, on any pyarrow filesystem.

    tracks/<source>.jsonl                 the catalogue of each source
    features/<recipe>/<shard>.arrow       one row per track: log-mel, each shared frame once
    targets/<teacher>/<segments>/<shard>.arrow
    commits/<part>/<shard>.json           what readers trust
    quarantine/<recipe>/<track>.json      tracks whose audio is at fault, with the reason

A shard is written under a temporary name, flushed, renamed and only then committed, so a reader sees all
of it or nothing. Its name is a hash of its part and its tracks: writing the same tracks again replaces the
same file, and a track that stands in two shards is read from the first of them by name.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
from pyarrow import fs

from etude.audio.recipe import FeatureRecipe
from etude.errors import UserError
from etude.sources.base import Track

FORMAT = "1"


@dataclass(frozen=True)
class Quarantined:
    """Why a track's audio cannot be used."""

    track_id: str
    uri: str
    title: str
    stage: str  # decode or teacher: the step that found the fault
    reason: str
    attempts: int = 1


def features_part(recipe: FeatureRecipe) -> str:
    """Where features made by a recipe lie."""
    return f"features/{recipe.id}"


def targets_part(teacher_id: str, recipe: FeatureRecipe) -> str:
    """Where a teacher's targets lie: they depend on how audio is decoded and cut, not on the mel."""
    cut = recipe.model_dump(include={"decoder", "sample_rate", "segment_samples", "hop_samples", "tail"})
    digest = hashlib.sha256(json.dumps(cut, sort_keys=True).encode()).hexdigest()[:12]
    return f"targets/{teacher_id}/{digest}"


class Store:
    """A folder, or any other location that pyarrow knows by its URI, such as `s3://bucket/etude`."""

    def __init__(self, root: str | Path) -> None:
        """Raises UserError if `root` holds a store of another format or cannot be used."""
        self.root = str(root)
        if "://" in self.root:
            self._fs, self._base = fs.FileSystem.from_uri(self.root)
        else:
            self._fs, self._base = fs.LocalFileSystem(), str(Path(root).expanduser().absolute())
        self.local = isinstance(self._fs, fs.LocalFileSystem)
        try:
            found = self._read("FORMAT")
            if found is None:
                self._write("FORMAT", FORMAT.encode())
        except OSError as error:
            raise UserError(f"cannot use {self.root} as a store: {error}") from error
        if found not in (None, FORMAT.encode()):
            raise UserError(
                f"{self.root} is a store of format {found.decode(errors='replace')!r}, this version reads "
                f"{FORMAT!r}: choose another folder with --home"
            )

    # -- catalogue ------------------------------------------------------------------------------------

    def write_catalogue(self, source_id: str, tracks: Sequence[Track]) -> None:
        """Replace what is known of a source's tracks."""
        # JSON keeps file names that are not valid UTF-8 (as escaped surrogates); Arrow strings cannot.
        lines = [json.dumps(dataclasses.asdict(track)) for track in tracks]
        self._write(f"tracks/{source_id}.jsonl", "\n".join(lines).encode())

    def read_catalogue(self, source_id: str) -> list[Track]:
        """The tracks of a source as last listed. Raises UserError if it was never listed."""
        data = self._read(f"tracks/{source_id}.jsonl")
        if data is None:
            raise UserError(f"{self.root} knows no tracks of {source_id}: run jobs/prepare_audio.py first")
        return [Track(**json.loads(line)) for line in data.splitlines()]

    # -- shards ---------------------------------------------------------------------------------------

    def write_shard(self, part: str, table: pa.Table) -> str:
        """Write and commit rows that have a `track_id` column; returns the shard's name."""
        ids = sorted(table.column("track_id").to_pylist())
        name = hashlib.sha256("\n".join([part, *ids]).encode()).hexdigest()[:16]
        sink = pa.BufferOutputStream()
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        data = sink.getvalue()
        self._write(f"{part}/{name}.arrow", data)
        commit = {"shard": name, "bytes": data.size, "tracks": ids}
        self._write(f"commits/{part}/{name}.json", json.dumps(commit).encode())
        return name

    def committed(self, part: str) -> dict[str, str]:
        """Track id to the name of the shard that holds it."""
        where: dict[str, str] = {}
        for path in self._list(f"commits/{part}", ".json"):
            commit = json.loads(self._read(path) or b"{}")
            for track_id in commit["tracks"]:
                where.setdefault(track_id, commit["shard"])
        return where

    def read_shard(self, part: str, name: str) -> pa.Table:
        """A committed shard's rows; on a local disk memory-mapped, so only what is used is read."""
        path = f"{self._base}/{part}/{name}.arrow"
        source = pa.memory_map(path) if self.local else self._fs.open_input_file(path)
        return pyarrow.ipc.open_file(source).read_all()

    def parts(self, kind: str) -> list[str]:
        """Committed parts of one kind, `features` or `targets`."""
        found = {path.rsplit("/", 1)[0] for path in self._list(f"commits/{kind}", ".json")}
        return sorted(part.removeprefix("commits/") for part in found)

    # -- quarantine -----------------------------------------------------------------------------------

    def write_quarantine(self, recipe_id: str, rows: Iterable[Quarantined]) -> None:
        """Record tracks whose audio is at fault; one file each, so that no writer disturbs another."""
        for row in rows:
            self._write(
                f"quarantine/{recipe_id}/{row.track_id}.json",
                json.dumps(dataclasses.asdict(row), ensure_ascii=True).encode(),
            )

    def quarantined(self, recipe_id: str) -> dict[str, Quarantined]:
        """Track id to why it is in quarantine."""
        rows = [json.loads(self._read(p) or b"{}") for p in self._list(f"quarantine/{recipe_id}", ".json")]
        return {row["track_id"]: Quarantined(**row) for row in rows}

    def release(self, recipe_id: str, track_ids: Iterable[str]) -> None:
        """Take tracks out of quarantine."""
        for track_id in track_ids:
            path = f"{self._base}/quarantine/{recipe_id}/{track_id}.json"
            if self._fs.get_file_info(path).type == fs.FileType.File:
                self._fs.delete_file(path)

    # -- files ----------------------------------------------------------------------------------------

    def free_bytes(self) -> int | None:
        """Room left on a local disk, None elsewhere."""
        return shutil.disk_usage(self._base).free if self.local else None

    def _read(self, path: str) -> bytes | None:
        full = f"{self._base}/{path}"
        if self._fs.get_file_info(full).type != fs.FileType.File:
            return None
        with self._fs.open_input_stream(full) as stream:
            return bytes(stream.read())

    def _write(self, path: str, data: bytes | pa.Buffer) -> None:
        full = f"{self._base}/{path}"
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

    def _list(self, folder: str, suffix: str) -> list[str]:
        selector = fs.FileSelector(f"{self._base}/{folder}", recursive=True, allow_not_found=True)
        paths = [info.path for info in self._fs.get_file_info(selector) if info.path.endswith(suffix)]
        return sorted(path.removeprefix(self._base + "/") for path in paths)
