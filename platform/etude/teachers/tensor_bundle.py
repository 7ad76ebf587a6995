"""Reads the variables of a TensorFlow checkpoint (V2, "tensor bundle") without TensorFlow.

A checkpoint is two files. The index is a LevelDB table from variable name to type, shape and place; the
data file holds the values, one after the other. Only what checkpoints of float32 variables use is read:
uncompressed blocks, one data file, little-endian values.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

_MAGIC = bytes.fromhex("57fb808b247547db")  # ends every LevelDB table
_FOOTER_BYTES = 48
_UNCOMPRESSED = 0  # the byte after a block
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
_DT_FLOAT = 1

_Message = dict[int, list[int | bytes]]


def read_tensor_bundle(index: bytes, data: bytes) -> dict[str, NDArray[np.float32]]:
    """Every variable by name, from the bytes of the two files; the arrays are read-only views of `data`.

    Raises ValueError if the bytes are not such a checkpoint. The checksums inside are not compared: the
    caller pins both files by a stronger hash.
    """
    try:
        entries = [(key.decode(), _message(value)) for key, value in _table(index)]
        return {name: _tensor(name, entry, data) for name, entry in entries if name}  # "" is the header
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"the index of the checkpoint is cut short or damaged ({error})") from error


def _tensor(name: str, entry: _Message, data: bytes) -> NDArray[np.float32]:
    dtype, shard, offset, n_bytes = (_integer(entry, field) for field in (1, 3, 4, 5))
    if dtype != _DT_FLOAT:
        raise ValueError(
            f"variable {name} has the TensorFlow type {dtype}; only float32 ({_DT_FLOAT}) is read"
        )
    if shard != 0 or 7 in entry:
        raise ValueError(f"variable {name} is spread over several files or slices; only one is read")
    dims = _message(_payload(entry, 2)).get(2, [])
    shape = [_integer(_message(dim), 1) for dim in dims if isinstance(dim, bytes)]
    if n_bytes != 4 * prod(shape) or offset + n_bytes > len(data):
        raise ValueError(f"variable {name} {shape} does not fit its place: {n_bytes} bytes at {offset}")
    return np.frombuffer(data, "<f4", prod(shape), offset).reshape(shape)


def _table(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, in order: an index block that points to blocks of entries."""
    if file[-len(_MAGIC) :] != _MAGIC or len(file) < _FOOTER_BYTES:
        raise ValueError("not the index of a TensorFlow V2 checkpoint: the last eight bytes are others")
    footer = len(file) - _FOOTER_BYTES
    _, footer = _handle(file, footer)  # the meta-index, which checkpoints leave empty
    blocks, _ = _handle(file, footer)
    for _, value in _block(file, *blocks):
        place, _ = _handle(value, 0)
        yield from _block(file, *place)


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where reading goes on."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(file: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if file[offset + size] != _UNCOMPRESSED:
        raise ValueError("the index of the checkpoint is compressed, which is not supported")
    block = file[offset : offset + size]
    n_restarts = int.from_bytes(block[-4:], "little")
    end = size - 4 - 4 * n_restarts
    key, at = b"", 0
    while at < end:
        # A key is stored as what it adds to the beginning of the key before.
        n_shared, at = _varint(block, at)
        n_added, at = _varint(block, at)
        n_value, at = _varint(block, at)
        key = key[:n_shared] + block[at : at + n_added]
        at += n_added
        yield key, block[at : at + n_value]
        at += n_value


def _message(data: bytes) -> _Message:
    """The fields of a protocol buffer message by number, each with all its values."""
    fields: _Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire in (_BYTES, _FIXED32, _FIXED64):
            size, at = _varint(data, at) if wire == _BYTES else (4 if wire == _FIXED32 else 8, at)
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"the index of the checkpoint is damaged: field {field} has wire type {wire}")
        fields.setdefault(field, []).append(value)
    return fields


def _integer(message: _Message, field: int) -> int:
    """An integer field, 0 where it is left out as protocol buffers do."""
    value = message.get(field, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"the index of the checkpoint is damaged: field {field} is no integer")
    return value


def _payload(message: _Message, field: int) -> bytes:
    value = message.get(field, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"the index of the checkpoint is damaged: field {field} is no message")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
