"""The pieces of a Parquet file: its row groups, and its footer. One group is read with the footer and nothing else.

For that their places and checksums are kept apart from the file.
"""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from logagg.sinks.footer import chunks, first_byte, footer_at, read_footer, row_groups

#: How many pieces there are; where each ends, and its CRC-32.
_COUNT, _PIECE = struct.Struct(">H"), struct.Struct(">II")


class Pieces(NamedTuple):
    """The row groups of a file in their order, then its footer."""

    #: In bytes from the start of the file. A piece begins where the one before it ends, the first at 0.
    ends: tuple[int, ...]
    #: CRC-32 (zlib).
    checksums: tuple[int, ...]

    @classmethod
    def of(cls, file: bytes) -> Self:
        """Find the pieces; none when it is no Parquet file, or one with more than we count."""
        try:
            ends = _ends(file)
        except (IndexError, KeyError, TypeError, ValueError):
            ends = []
        if len(ends) >> 16 or not _possible(ends):
            ends = []
        return cls(tuple(ends), tuple(zlib.crc32(file[start:end]) for start, end in pairwise([0, *ends])))

    @classmethod
    def unpack(cls, data: bytes, at: int) -> tuple[Self, int]:
        """Read what `pack` wrote at a place; return where it ends, too. Anything else tells of no pieces."""
        start = at + _COUNT.size
        end = start + _COUNT.unpack(data[at:start])[0] * _PIECE.size if len(data) >= start else start
        pieces = list(_PIECE.iter_unpack(data[start:end])) if len(data) >= end else []
        ends = tuple(place for place, _ in pieces)
        return cls(ends, tuple(checksum for _, checksum in pieces)) if _possible(ends) else cls((), ()), end

    def pack(self) -> bytes:
        """Return their number in 2 bytes, and of each the end and the checksum in 4 bytes each, big-endian."""
        return _COUNT.pack(len(self.ends)) + b"".join(map(_PIECE.pack, self.ends, self.checksums))

    def have(self, groups: Sequence[int]) -> bool:
        """Tell whether these row groups are among them."""
        return max(groups) < len(self.ends) - 1

    def needed(self, groups: Sequence[int]) -> list[tuple[int, int]]:
        """Return start and length of what these row groups are read with: they, then the footer."""
        return [(start, end - start) for start, end in map(self._bounds, self._places(groups))]

    def joined(self, groups: Sequence[int], parts: Sequence[bytes]) -> bytes:
        """Return a file with the parts that `needed` named, and zeros for all else. Raises ValueError for damage."""
        file, at = [], 0
        for place, part in zip(self._places(groups), parts, strict=True):
            start, end = self._bounds(place)
            if len(part) != end - start or zlib.crc32(part) != self.checksums[place]:
                message = f"{len(part)} bytes at {start} that differ from their checksum"
                raise ValueError(message)
            file += [bytes(start - at), part]
            at = end
        return b"".join(file)

    def _places(self, groups: Sequence[int]) -> list[int]:
        return [*sorted(groups), len(self.ends) - 1]

    def _bounds(self, place: int) -> tuple[int, int]:
        return self.ends[place - 1] if place else 0, self.ends[place]


def _possible(ends: Sequence[int]) -> bool:
    """Tell whether the pieces of a file may end there; PostgreSQL counts its bytes with 31 bits."""
    return all(start < end for start, end in pairwise([0, *ends])) and not max(ends, default=0) >> 31


def _ends(file: bytes) -> list[int]:
    """Return where the row groups end, and the file. Raises whatever, for what is no Parquet file."""
    starts = [min(map(first_byte, chunks(group))) for group in row_groups(read_footer(file))]
    return [*starts[1:], footer_at(file), len(file)] if starts else [len(file)]
