"""The parts of packed batches as they are stored: fetched whole, or just what some row groups need."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg
import polars as pl

from logagg.sinks import packing
from logagg.sinks.cache import Cache
from logagg.sinks.errors import StoreError, StoreUnavailable, unavailable
from logagg.sinks.pieces import Pieces

PARTS = {"head": packing.HEAD, "body": packing.BODY}
#: `%s` are names out of `PARTS`. A part is null for a batch that is not packed.
_BLOBS = "select packed_at, checksums, %s from batches where batch = $1"
_CHECKSUMS = "select packed_at, checksums from batches where batch = $1"
#: Starts and lengths of what is wanted of the head, and of the body. No more of them is read, for they are stored as
#: they are, in chunks.
_PIECES = """
select packed_at,
    array(select substr(head, at + 1, size) from unnest($2::int[], $3::int[]) with ordinality as a (at, size, place)
        order by place) as head,
    array(select substr(body, at + 1, size) from unnest($4::int[], $5::int[]) with ordinality as a (at, size, place)
        order by place) as body
from batches where batch = $1
"""
#: Bytes that the pieces of a batch take in memory, about.
_KNOWN = 3000


class Reader(Protocol):
    """Gives a connection to read with: `Connections.reader`."""

    def __call__(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Return a context manager that gives a connection."""


class Rewritten(Exception):
    """The packed form of a batch is of another version than the one that was asked for."""

    def __init__(self, version: int) -> None:
        self.version = version


@dataclass(frozen=True)
class File:
    """A part of a packed batch as it was fetched: the whole of it, or what some row groups need."""

    parts: Sequence[bytes]
    #: Of the whole; None for one that was compared with them already, or is older than they are.
    checksums: bytes | None = None
    pieces: Pieces | None = None
    #: It was held already.
    held: bool = False

    @property
    def fetched(self) -> int:
        """In bytes, what came for it."""
        return 0 if self.held else sum(map(len, self.parts))

    def read(self, part: str, columns: Sequence[str], groups: Sequence[int] | None) -> pl.DataFrame:
        """Decode columns of these row groups, None is all. Raises any error for what is damaged."""
        if groups is not None and self.pieces:
            return packing.read_groups(self.pieces.joined(groups, self.parts), columns, groups)
        blob = packing.checked(self.parts[0], self.checksums, part)
        return packing.read(blob, columns) if groups is None else packing.read_groups(blob, columns, groups)


class Blobs:
    """Fetches parts of packed batches. `cache_bytes` bounds what it keeps of them."""

    def __init__(self, reader: Reader, replica: Reader | None, cache_bytes: int) -> None:
        """Ask the replica first, if there is one, and `reader` for what that does not give."""
        self._reader = reader
        self._replica = replica
        #: A record that is found in a batch is read from it in the next moment.
        self._whole: Cache[tuple[int, int, str], bytes] = Cache(cache_bytes)
        self._pieces: Cache[tuple[int, int], dict[str, Pieces]] = Cache(cache_bytes // 4)

    async def fetch(
        self, number: int, version: int, parts: Sequence[str], groups: Sequence[int] | None
    ) -> dict[str, File] | None:
        """Return parts of a batch, or what these row groups of them need; None when the batch is gone.

        Raises Rewritten, StoreUnavailable, and StoreError for a batch that is not packed.
        """
        held = {part: self._whole.get((number, version, part)) for part in parts}
        found = {part: File([blob], held=True) for part, blob in held.items() if blob is not None}
        fresh = await self._fetched(number, version, [part for part in parts if part not in found], groups)
        return None if fresh is None else found | fresh

    def keep(self, number: int, version: int, files: dict[str, File]) -> None:
        """Keep the parts that were fetched whole and found to be undamaged."""
        for part, file in files.items():
            if not file.held and file.pieces is None:
                self._whole.put((number, version, part), file.parts[0], len(file.parts[0]))

    async def _fetched(
        self, number: int, version: int, parts: Sequence[str], groups: Sequence[int] | None
    ) -> dict[str, File] | None:
        """Return parts of a batch as they are stored, or what these row groups need; None when the batch is gone."""
        if not parts:
            return {}
        if groups is not None:
            pieces = await self._pieces_of(number, version)
            if pieces is None:
                return None
            if all(pieces[part].have(groups) for part in parts):
                return await self._fetched_pieces(number, version, {part: pieces[part] for part in parts}, groups)
        row = await self._row(_BLOBS % ", ".join(parts), number, version)
        if row is None:
            return None
        self._know(number, version, row["checksums"])
        return {part: File([row[part]], checksums=row["checksums"]) for part in parts}

    async def _fetched_pieces(
        self, number: int, version: int, pieces: dict[str, Pieces], groups: Sequence[int]
    ) -> dict[str, File] | None:
        ranges = (pieces[part].needed(groups) if part in pieces else () for part in PARTS)
        bounds = [[bound[place] for bound in some] for some in ranges for place in (0, 1)]
        row = await self._row(_PIECES, number, version, *bounds)
        return None if row is None else {part: File(row[part], pieces=some) for part, some in pieces.items()}

    async def _pieces_of(self, number: int, version: int) -> dict[str, Pieces] | None:
        if (known := self._pieces.get((number, version))) is not None:
            return known
        row = await self._row(_CHECKSUMS, number, version)
        return None if row is None else self._know(number, version, row["checksums"])

    def _know(self, number: int, version: int, checksums: bytes | None) -> dict[str, Pieces]:
        pieces = packing.pieces(checksums)
        self._pieces.put((number, version), pieces, _KNOWN)
        return pieces

    async def _row(self, query: str, number: int, version: int, *arguments: object) -> dict[str, Any] | None:
        """Return what a query says of a packed batch; None when the batch is gone.

        Raises StoreError for a batch that is not packed, and Rewritten.
        """
        if self._replica:
            with suppress(StoreUnavailable):
                async with self._replica() as con:
                    row = await con.fetchrow(query, number, *arguments)
                if row and row["packed_at"] == version:
                    return dict(row)
        with unavailable():
            async with self._reader() as con:
                row = await con.fetchrow(query, number, *arguments)
        if row is None:
            return None
        stored = dict(row)
        if stored["packed_at"] is None or any(stored.get(part, b"") is None for part in PARTS):
            message = f"batch {number} is not packed"
            raise StoreError(message)
        if stored["packed_at"] != version:
            raise Rewritten(stored["packed_at"])
        return stored
