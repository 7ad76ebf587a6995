"""What a source listed, compact enough to plan a million tracks: compressed Arrow batches, never a list.

In memory and in the store it is the same bytes: what a plan was made from is written when preparing starts.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.ipc

from etude.sources.base import Track

# JSON keeps file names that are not valid UTF-8 (as escaped surrogates); Arrow strings cannot.
SCHEMA = pa.schema([("track_id", pa.string()), ("duration_s", pa.float64()), ("track", pa.string())])
BATCH_TRACKS = 4096
_to_json = json.JSONEncoder(default=dict).encode  # tags may be any mapping


class Catalogue:
    """The tracks of a source, in the order in which it listed them."""

    def __init__(self, data: pa.Buffer) -> None:
        """`data` is an Arrow stream of batches that follow `SCHEMA`."""
        self.data = data
        kept = [batch.select([0, 1]) for batch in self.batches()]
        columns = pa.Table.from_batches(kept, pa.schema([SCHEMA.field(0), SCHEMA.field(1)]))
        self.ids: pa.ChunkedArray = columns["track_id"]
        self.durations_s: pa.ChunkedArray = columns["duration_s"]  # null where not known before decoding

    @staticmethod
    def of(tracks: Iterable[Track]) -> "Catalogue":
        """Take in a listing as it comes: no more than one batch of it is there as tracks at a time."""
        sink = pa.BufferOutputStream()
        options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
        listing = iter(tracks)
        with pyarrow.ipc.new_stream(sink, SCHEMA, options=options) as writer:
            while chunk := list(islice(listing, BATCH_TRACKS)):
                ids = [track.id for track in chunk]
                durations_s = [track.duration_s for track in chunk]
                rows = [_to_json(vars(track)) for track in chunk]
                writer.write_batch(pa.record_batch([ids, durations_s, rows], schema=SCHEMA))
        return Catalogue(sink.getvalue())

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Track]:
        for batch in self.batches():
            for row in batch["track"].to_pylist():
                yield track_of(row)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows in order, some thousands at a time; `track` holds a Track as JSON."""
        with pyarrow.ipc.open_stream(self.data) as reader:
            yield from reader


def track_of(row: str) -> Track:
    """The track in a row's `track`; a field that an older catalogue does not have is empty."""
    fields = json.loads(row)
    return Track(**fields | {"captions": tuple(fields.get("captions", ()))})  # JSON has no tuples
