"""One Parquet file out of many pieces, in bounded memory.

A Parquet file is row groups one behind the other, and a footer that says where each begins. polars writes whole files
only; so each piece is written as a file of its own, its row groups are taken over as they are, and one footer is made
of all footers, with the places moved.
"""

import io

import polars as pl

from logagg.sinks.footer import (
    I64,
    LIST,
    MAGIC,
    META,
    OFFSETS,
    ROW_GROUPS,
    STRUCT,
    Struct,
    chunks,
    first_byte,
    read_footer,
    row_groups,
    write_struct,
)

#: Rows of a row group, at least, but for the last one; and bytes in memory from which fewer will do.
GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20

# Numbers of the fields that we touch, besides those of `footer`.
_NUM_ROWS = 3  # of FileMetaData
_GROUP_ROWS, _GROUP_OFFSET, _ORDINAL = 3, 5, 7  # of RowGroup
_FILE_OFFSET, _INDEXES = 2, (4, 5, 6, 7)  # of ColumnChunk
_COMPRESSED, _BLOOM = 7, (14, 15)  # of ColumnMetaData


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
        groups = (LIST, (STRUCT, self._groups))
        footer = write_struct({**self._footer, _NUM_ROWS: (I64, self._rows), ROW_GROUPS: groups})
        return b"".join((rest, footer, len(footer).to_bytes(4, "little"), MAGIC))

    def _flush(self) -> bytes:
        """Write what is held as row groups."""
        start = b"" if self._size else MAGIC
        self._size += len(start)
        footer, data = _pieces(pl.concat([self._empty, *self._held], rechunk=True))
        self._held, self._held_rows, self._held_bytes = [], 0, 0
        for group in row_groups(footer):
            _move(group, self._size - len(MAGIC))
            self._groups.append(write_struct(group))
            self._rows += group[_GROUP_ROWS][1]
        self._size += len(data)
        return start + data


def _pieces(frame: pl.DataFrame) -> tuple[Struct, bytes]:
    """Return the footer of the frame as a file, and the bytes of its row groups, which begin behind the magic."""
    out = io.BytesIO()
    frame.write_parquet(out, compression="zstd", row_group_size=2 * GROUP_ROWS)
    whole = out.getvalue()
    footer = read_footer(whole)
    return footer, whole[len(MAGIC) : _end(footer)]


def _end(footer: Struct) -> int:
    """Return where the last row group ends; indexes behind it are left out, for they hold places, too."""
    ends = [
        first_byte(chunk) + chunk[META][1][_COMPRESSED][1] for group in row_groups(footer) for chunk in chunks(group)
    ]
    return max(ends, default=len(MAGIC))


def _move(group: Struct, by: int) -> None:
    """Tell of a row group that it, and all in it, begins so many bytes later."""
    _add(group, (_GROUP_OFFSET,), by)
    group.pop(_ORDINAL, None)  # 16 bits, and optional
    for chunk in chunks(group):
        _add(chunk, (_FILE_OFFSET,), by)
        meta = chunk[META][1]
        _add(meta, OFFSETS, by)
        for n in _INDEXES:
            chunk.pop(n, None)
        for n in _BLOOM:
            meta.pop(n, None)


def _add(struct: Struct, numbers: tuple[int, ...], by: int) -> None:
    for n in numbers:
        if n in struct:
            kind, value = struct[n]
            struct[n] = (kind, value + by)
