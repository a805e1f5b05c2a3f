"""One Parquet file out of many pieces, in bounded memory.

A Parquet file is row groups one behind the other, and a footer that says where each begins. polars writes whole files
only; so each piece is written as a file of its own, its row groups are taken over as they are, and one footer is made
of all footers, with the places moved. The footer is in Thrift's compact protocol: see `parquet.thrift` of
https://github.com/apache/parquet-format and `doc/specs/thrift-compact-protocol.md` of https://github.com/apache/thrift.
"""

import io
from typing import Any

import polars as pl

_MAGIC = b"PAR1"
#: Rows of a row group, at least, but for the last one; and bytes in memory from which fewer will do.
GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20

# Types of the compact protocol. The first two are values, too; the whole numbers of 16, 32 and 64 bits are all written
# as zigzag varints.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12
_WHOLE = (_I16, _I32, _I64)

# Numbers of the fields that we touch.
_NUM_ROWS, _ROW_GROUPS = 3, 4  # of FileMetaData
_COLUMNS, _GROUP_ROWS, _GROUP_OFFSET, _ORDINAL = 1, 3, 5, 7  # of RowGroup
_FILE_OFFSET, _META, _INDEXES = 2, 3, (4, 5, 6, 7)  # of ColumnChunk
_COMPRESSED, _OFFSETS, _BLOOM = 7, (9, 10, 11), (14, 15)  # of ColumnMetaData

#: A struct: number of a field -> its type and its value.
Struct = dict[int, tuple[int, Any]]


class ParquetStream:
    """Writes frames of one schema: `add` and then `finish` return the bytes of one file, in order."""

    def __init__(self, schema: pl.Schema, *, group_rows: int = GROUP_ROWS) -> None:
        self.schema = schema
        self._group_rows = group_rows
        # Of a file without rows: it gives the footer all that is not about row groups.
        self._empty = pl.DataFrame(schema=schema)
        self._footer = _pieces(self._empty)[0]
        self._groups: list[bytes] = []
        self._rows = 0
        self._size = 0
        self._held: list[pl.DataFrame] = []
        self._held_rows = self._held_bytes = 0

    def add(self, frame: pl.DataFrame) -> bytes:
        """Add rows; return what is to be written now, which may be nothing."""
        self._held.append(frame)
        self._held_rows += frame.height
        self._held_bytes += int(frame.estimated_size())
        enough = self._held_rows >= self._group_rows or self._held_bytes >= GROUP_BYTES
        return self._flush() if enough else b""

    def finish(self) -> bytes:
        """Return the end of the file."""
        rest = self._flush() if self._held_rows or not self._size else b""
        groups = (_LIST, (_STRUCT, self._groups))
        footer = _written({**self._footer, _NUM_ROWS: (_I64, self._rows), _ROW_GROUPS: groups})
        return b"".join((rest, footer, len(footer).to_bytes(4, "little"), _MAGIC))

    def _flush(self) -> bytes:
        """Write what is held as row groups."""
        start = b"" if self._size else _MAGIC
        self._size += len(start)
        footer, data = _pieces(pl.concat([self._empty, *self._held], rechunk=True))
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        for group in footer[_ROW_GROUPS][1][1]:
            _move(group, self._size - len(_MAGIC))
            self._groups.append(_written(group))
            self._rows += group[_GROUP_ROWS][1]
        self._size += len(data)
        return start + data


def _pieces(frame: pl.DataFrame) -> tuple[Struct, bytes]:
    """Return the footer of the frame as a file, and the bytes of its row groups, which begin behind the magic."""
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd", row_group_size=2 * GROUP_ROWS)
    whole = out.getvalue()
    end = len(whole) - 8
    footer = _Reader(whole[end - int.from_bytes(whole[end : end + 4], "little") : end]).struct()
    return footer, whole[len(_MAGIC) : _end(footer)]


def _end(footer: Struct) -> int:
    """Return where the last row group ends; indexes behind it are left out, for they hold places, too."""
    ends = [len(_MAGIC)]
    for group in footer[_ROW_GROUPS][1][1]:
        for chunk in group[_COLUMNS][1][1]:
            meta = chunk[_META][1]
            ends.append(min(meta[n][1] for n in _OFFSETS if n in meta) + meta[_COMPRESSED][1])
    return max(ends)


def _move(group: Struct, by: int) -> None:
    """Tell of a row group that it, and all in it, begins so many bytes later."""
    _add(group, (_GROUP_OFFSET,), by)
    group.pop(_ORDINAL, None)  # 16 bits, and optional
    for chunk in group[_COLUMNS][1][1]:
        _add(chunk, (_FILE_OFFSET,), by)
        meta = chunk[_META][1]
        _add(meta, _OFFSETS, by)
        for n in _INDEXES:
            chunk.pop(n, None)
        for n in _BLOOM:
            meta.pop(n, None)


def _add(struct: Struct, numbers: tuple[int, ...], by: int) -> None:
    for n in numbers:
        if n in struct:
            kind, value = struct[n]
            struct[n] = (kind, value + by)


class _Reader:
    """Reads the compact protocol, as much of it as Parquet uses: all but sets and maps."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> Struct:
        found: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            found[number] = (head & 15, self._value(head & 15))
        return found

    def _value(self, kind: int) -> Any:
        if kind in _WHOLE:
            return self._zigzag()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct()
        if kind == _LIST:
            return self._list()
        if kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_TRUE, _FALSE):
            return None
        message = f"type {kind} in a footer of Parquet"
        raise ValueError(message)

    def _list(self) -> tuple[int, list[Any]]:
        head = self._byte()
        size, kind = head >> 4, head & 15
        size = self._varint() if size == 15 else size
        if kind in (_TRUE, _FALSE):  # in a list, a byte each
            return kind, [self._byte() for _ in range(size)]
        return kind, [self._value(kind) for _ in range(size)]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def _written(struct: Struct) -> bytes:
    writer = _Writer()
    writer.struct(struct)
    return bytes(writer.out)


class _Writer:
    """Writes what `_Reader` reads. A struct may also be given as the bytes that this has written for it."""

    def __init__(self) -> None:
        self.out = bytearray()

    def struct(self, struct: Struct) -> None:
        last = 0
        for number, (kind, value) in sorted(struct.items()):
            if 0 < number - last < 16:
                self.out.append((number - last) << 4 | kind)
            else:
                self.out.append(kind)
                self._zigzag(number)
            last = number
            self._value(kind, value)
        self.out.append(0)

    def _value(self, kind: int, value: Any) -> None:
        if kind in _WHOLE:
            self._zigzag(value)
        elif kind == _BYTE:
            self.out.append(value)
        elif kind == _DOUBLE:
            self.out += value
        elif kind == _BINARY:
            self._varint(len(value))
            self.out += value
        elif kind == _LIST:
            self._list(*value)
        elif kind == _STRUCT and isinstance(value, bytes):
            self.out += value
        elif kind == _STRUCT:
            self.struct(value)

    def _list(self, kind: int, values: list[Any]) -> None:
        if len(values) < 15:
            self.out.append(len(values) << 4 | kind)
        else:
            self.out.append(15 << 4 | kind)
            self._varint(len(values))
        for value in values:
            self._value(_BYTE if kind in (_TRUE, _FALSE) else kind, value)

    def _varint(self, value: int) -> None:
        while value > 127:
            self.out.append(value & 127 | 128)
            value >>= 7
        self.out.append(value)

    def _zigzag(self, value: int) -> None:
        self._varint(value << 1 if value >= 0 else (-value << 1) - 1)
