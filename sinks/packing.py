"""The packed form of a batch: its records as columns in two Parquet files, the token filter, the summary.

`head` has what most questions need first, `body` the long texts. Both are plain Parquet with zstd for any reader.
The records stand in the order that compresses best, the same in both: by service, and within it by the length of
the message, which puts texts of one template next to each other.
"""

import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import polars as pl

from logagg.sinks import filters
from logagg.sinks.pieces import Pieces

#: The columns of `head` and of `body`.
HEAD = (
    *("id", "timestamp", "received_at", "severity", "facility", "environment", "host", "service", "source"),
    *("trace_id", "span_id"),
)
BODY = ("message", "attributes", "raw")
#: The columns of the summary: how many records a minute (since 1970, of the timestamp), environment, service, severity.
SUMMARY: dict[str, pl.DataType] = {
    "minute": pl.Int64(),
    "environment": pl.String(),
    "service": pl.String(),
    "severity": pl.Int8(),
    "count": pl.UInt32(),
}

#: Levels of zstd. Of texts in this order, higher ones save little and cost much: 1 % for twice the time.
_HEAD_LEVEL, _BODY_LEVEL = 3, 1
#: Bytes, before compression. Within a page zstd finds what is repeated: a column of a row group goes into one page, as
#: a rule. Pages of 1 MB take 0.2 bytes a record more.
_PAGE = 1 << 22
#: Records of a row group. For one record its group is decoded; smaller ones cost bytes, and time when all are read.
GROUP = 1 << 13
#: A summary is worth it with so many times fewer rows than the batch.
_WORTH = 4
_MINUTE = 60_000_000
_CHECKSUM = 4
#: Behind the checksums of head, body, filter and summary.
_PIECES = 4 * _CHECKSUM
#: Bytes of a message, as their number has 32 bits.
_LONGER_THAN_ANY = 1 << 32

#: The texts of the head that are searched by words.
_SEARCHED = ("trace_id", "span_id", "host", "service", "source", "environment")


class Packed(NamedTuple):
    """A batch as it is stored in `batches`."""

    head: bytes
    body: bytes
    #: See `filters`.
    filter: bytes
    #: Parquet; None where it would not be much smaller than the head.
    summary: bytes | None
    #: CRC-32 of the parts before (of no bytes when there is no summary), 4 bytes each, big-endian; then the pieces of
    #: head and of body, see `Pieces.pack`. Those packed before there were pieces have none.
    checksums: bytes


class Damaged(ValueError):
    """A part of a packed batch is not what was written."""


def checked(part: bytes, checksums: bytes | None, name: str) -> bytes:
    """Return the part of this name; raise Damaged when it differs from its checksum, where there is one."""
    place = Packed._fields.index(name) * _CHECKSUM
    if checksums is not None and _checksum(part) != checksums[place : place + _CHECKSUM]:
        message = f"{name}: {len(part)} bytes that differ from their checksum"
        raise Damaged(message)
    return part


def _checksum(part: bytes) -> bytes:
    return zlib.crc32(part).to_bytes(_CHECKSUM, "big")


def pack(frame: pl.DataFrame) -> Packed:
    """Pack the records of a batch: columns of `frames.FULL`, in any order. The same records give the same bytes."""
    frame = _ordered(frame)
    head = _written(frame.select(HEAD), _HEAD_LEVEL, GROUP)
    body = _written(frame.select(BODY), _BODY_LEVEL, GROUP)
    texts = [frame["message"], *(frame[name].unique() for name in _SEARCHED)]
    words = filters.build(texts, frame["attributes"])
    summary = _summary(frame)
    checksums = b"".join(map(_checksum, (head, body, words, summary or b"")))
    return Packed(head, body, words, summary, checksums + Pieces.of(head).pack() + Pieces.of(body).pack())


def pieces(checksums: bytes | None) -> dict[str, Pieces]:
    """Return the pieces of head and body that `checksums` tells of; none for a part that can only be read whole."""
    places = (checksums or b"")[_PIECES:]
    head, end = Pieces.unpack(places, 0)
    body, _ = Pieces.unpack(places, end)
    return {"head": head, "body": body}


def read(blob: bytes, columns: Sequence[str]) -> pl.DataFrame:
    """Return columns of a head or of a body. Raises polars' errors, or any other, when it is no such file."""
    return pl.read_parquet(BytesIO(blob), columns=list(columns), use_statistics=False).select(columns)


def read_groups(blob: bytes, columns: Sequence[str], groups: Sequence[int]) -> pl.DataFrame:
    """Return columns of some row groups, one after the other; nothing else is read of the file but its footer."""
    scan = pl.scan_parquet(BytesIO(blob), use_statistics=False).select(columns)
    # Collected at once, they would be slices of the whole file, decoded.
    return pl.concat([scan.slice(group * GROUP, GROUP).collect() for group in groups])


def read_summary(data: bytes) -> pl.DataFrame:
    """Return a summary, columns as in SUMMARY; a row for each combination of values that there is."""
    return read(data, tuple(SUMMARY))


def _ordered(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the records by service, length of the message, and id: by one number, in half the time of three keys."""
    if not frame["id"].is_sorted():
        frame = frame.sort("id")
    services = pl.Enum(frame["service"].unique().drop_nulls().sort())
    rank = pl.col("service").cast(services).to_physical().cast(pl.Int64).fill_null(-1)
    return frame.sort(rank * _LONGER_THAN_ANY + pl.col("message").str.len_bytes(), maintain_order=True)


def _written(frame: pl.DataFrame, level: int, group: int) -> bytes:
    file = BytesIO()
    frame.write_parquet(
        file,
        compression="zstd",
        compression_level=level,
        statistics=False,  # nobody asks for them: the order is not one that they would help with
        row_group_size=max(group, 1),
        data_page_size=_PAGE,
    )
    return file.getvalue()


def _summary(head: pl.DataFrame) -> bytes | None:
    minute = (pl.col("timestamp").dt.timestamp("us") // _MINUTE).alias("minute")
    keys = [name for name in SUMMARY if name != "count"]
    counts = head.lazy().group_by(minute, *keys[1:]).agg(pl.len().cast(pl.UInt32).alias("count")).sort(keys).collect()
    return _written(counts, _HEAD_LEVEL, len(counts)) if len(counts) * _WORTH <= len(head) else None
