"""`POST /upload`, as systemd-journal-upload sends it: all that its journal has, in one request, stored as it comes.

The answer is 200 when all entries are in PostgreSQL. Anything else, and no answer, makes the program end; it starts
again behind the last entry of the last request that was answered. `protocols/journald.py` says what comes again then;
each batch is looked up before it is stored, and each entry is stored once. For that,

- one request at a time has its turn, of an address and a journal: a newer one ends the older, whose connection is dead
  if its program is a single one, and waits until what the older one left behind is durable;
- nothing is asked while records wait in our own journal, where a question does not reach. So while PostgreSQL is away a
  request waits, and gets its 503 after `ack_timeout`. Its entries are safe: its own machine keeps them in its journal.
  What was on its way when PostgreSQL went is kept in ours, with its key.

An entry may be there twice when the program has lost its state and begins with all of its journal again; when its key
is older than a week; when requests of one program meet two daemons of one database at the same time, or one while the
other has records in its journal; and when it comes from another program, which may be quiet in the middle of a request:
its entries are stored then, and end a batch where it would not end otherwise.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import structlog
from aiohttp import web
from pydantic import BaseModel, Field

from logagg.collector.intake import Intake, Overloaded
from logagg.collector.limits import source_of
from logagg.protocols.journald import Batch, JournalDecoder, key_of
from logagg.protocols.record import Origin
from logagg.query.grants import grant_of
from logagg.query.http import Route, reply
from logagg.sinks.errors import StoreUnavailable
from logagg.sinks.keys import Keys

log = structlog.get_logger("journald")

TRANSPORT: Final = "journald"
#: What the program calls itself; its requests end by themselves, and come again.
PROGRAM: Final = "systemd-journal-upload"
#: Seconds without anything new after which the entries of any other sender are stored.
QUIET: Final = 5.0
#: Batches of a request that may be on their way to PostgreSQL.
MOST_BATCHES: Final = 16
#: Seconds between two tries to reach PostgreSQL.
_PAUSE = 0.1

_STATUSES = {
    400: "The connection broke, or the body is not what its Transfer-Encoding says.",
    408: "Nothing came for http_body_timeout, and not the end.",
    415: "The body has a Content-Encoding.",
    503: "Not all of it is stored; send it again after Retry-After seconds. What is stored is not stored again.",
}

T = TypeVar("T")


class Uploaded(BaseModel):
    """Answer of `POST /upload`."""

    stored: int = Field(description="Entries stored, among them those that cannot be read, which are in quarantine.")
    repeated: int = Field(description="Entries that were stored before.")


class Uploads:
    """All requests that are being read."""

    def __init__(
        self,
        intake: Intake,
        keys: Keys,
        journaling: Callable[[], bool],
        *,
        max_frame: int,
        patience: float,
        environment: str | None,
    ) -> None:
        """Cut fields of more than `max_frame` bytes; wait for the next piece of a body for `patience` seconds.

        `journaling` tells whether records wait in our journal.
        """
        self.intake = intake
        self.keys = keys
        self.max_frame = max_frame
        self.patience = patience
        self.environment = environment
        #: By address and journal.
        self.turns: WeakValueDictionary[tuple[str, str], _Turn] = WeakValueDictionary()
        self.journaling = journaling
        self._running: set[_Upload] = set()
        #: Those that are over, and wait for what they have left behind.
        self._leaving: set[asyncio.Task[None]] = set()

    def routes(self) -> Sequence[Route[Any, Any]]:
        """Return the route."""
        summary = "Store entries of systemd's journal, in the Journal Export Format, as they come"
        return [
            Route(
                "POST",
                "/upload",
                summary,
                "ingest",
                self._take,
                scope="ingest",
                response=Uploaded,
                consumes=("application/vnd.fdo.journal",),
                statuses=_STATUSES,
            )
        ]

    async def stop(self, _: web.Application) -> None:
        """End all requests: they have no end of their own that could be waited for."""
        for upload in self._running:
            upload.end("the daemon stops")

    async def _take(self, request: web.Request, _: None, __: None) -> web.Response:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise web.HTTPUnsupportedMediaType(reason="a journal is taken without a Content-Encoding")
        upload = _Upload(self, request)
        self._running.add(upload)
        try:
            await upload.run()
        except asyncio.CancelledError:
            if upload.why is None or upload.task.uncancel():
                raise
            raise Overloaded(upload.why) from None
        except OSError as error:
            log.debug("connection lost", transport=TRANSPORT, reason=str(error))
            raise web.HTTPBadRequest(reason="the connection broke") from None
        finally:
            self._running.discard(upload)
            leaving = asyncio.create_task(upload.leave())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        return reply({"stored": upload.stored, "repeated": upload.repeated})


class _Turn:
    """Whose turn it is, of the requests of one program."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        #: The latest that asked for it.
        self.latest: _Upload | None = None


class _Upload:
    """One request."""

    def __init__(self, uploads: Uploads, request: web.Request) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # we are called by it
        self.task = task
        #: Why it was ended.
        self.why: str | None = None
        self.stored = self.repeated = 0
        self._uploads = uploads
        self._content = request.content
        self._peer = request.remote or ""
        self._source = source_of(request)
        self._grant = grant_of(request)
        self._resumes = request.headers.get("User-Agent", "").startswith(PROGRAM)
        self._decoder = JournalDecoder(uploads.max_frame)
        self._turn: _Turn | None = None
        #: Of batches that are not durable yet.
        self._acks: set[asyncio.Future[None]] = set()
        self._final = ""

    async def run(self) -> None:
        """Take all that comes; return when all of it is stored."""
        while piece := await self._read():
            await self._store(self._decoder.feed(piece, self._origin()))
        await self._store(self._decoder.close(self._origin()))
        await self._durable(0)
        if self._final:
            await self._in_time(lambda: self._uploads.keys.add([bytes.fromhex(key_of(self._final))]))

    def end(self, why: str) -> None:
        """End it from outside, wherever it is."""
        if self.why is None:
            self.why = why
            self.task.cancel()

    async def leave(self) -> None:
        """Give the turn to the next one when nothing of this one is on its way any more."""
        if self._turn:
            if self._turn.latest is self:
                self._turn.latest = None
            if self._acks:
                await asyncio.wait(self._acks)
            self._turn.lock.release()

    def _origin(self) -> Origin:
        return Origin(datetime.now(UTC), TRANSPORT, self._peer, self._uploads.environment)

    async def _read(self) -> bytes:
        """Return what has come; empty at the end."""
        patience = self._uploads.patience if self._resumes else QUIET
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self._content.readany()
        if self._resumes:
            raise web.HTTPRequestTimeout(reason=f"nothing came for {patience:g} s")
        await self._store(self._decoder.flush())
        return await self._content.readany()

    async def _store(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            left = await self._left(batch)
            decoded = self._uploads.intake.within(left.decoded, self._grant, self._peer)
            whole = batch.decoded
            count = len(decoded.records) + len(decoded.rejects)
            repeated = len(whole.records) + len(whole.rejects) - count
            self._uploads.intake.repeated(TRANSPORT, repeated, batch.size - left.size)
            self.repeated += repeated
            if count:
                await self._durable(MOST_BATCHES - 1)
                key = bytes.fromhex(left.key) if left.key else None
                ack = await self._uploads.intake.put(TRANSPORT, decoded, left.size, key)
                self._acks.add(ack)
                ack.add_done_callback(self._acks.discard)
                self.stored += count
                await self._uploads.intake.limits.pause(self._source, TRANSPORT, count, left.size)
            self._final = batch.final if batch.key else ""

    async def _left(self, batch: Batch) -> Batch:
        """Return what is not stored yet."""
        if not batch.forms:
            return batch
        if not self._turn:
            await self._take_turn(batch.first)
        forms = {bytes.fromhex(key): key for key in batch.forms}
        return batch.rest([forms[key] for key in await self._in_time(lambda: self._known(list(forms)))])

    async def _known(self, keys: Sequence[bytes]) -> set[bytes]:
        if self._uploads.journaling():
            raise StoreUnavailable("records wait in the journal, and it is not known which")
        return await self._uploads.keys.known(keys)

    async def _take_turn(self, cursor: str) -> None:
        name = (self._peer, cursor.partition(";")[0])  # s=..., which names the sequence of entries of a journal
        turn = self._uploads.turns.setdefault(name, _Turn())
        if turn.latest:
            turn.latest.end("a newer request of this program has come")
        turn.latest = self
        try:
            await self._in_time(turn.lock.acquire)
        except BaseException:
            if turn.latest is self:
                turn.latest = None
            raise
        self._turn = turn

    async def _durable(self, most: int) -> None:
        """Return when no more than so many batches are on their way."""
        while len(self._acks) > most:
            patience = self._uploads.intake.ack_timeout
            done, _ = await asyncio.wait(self._acks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise Overloaded(f"PostgreSQL did not commit within {patience:g} s")

    async def _in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, again and again until PostgreSQL is there; Overloaded when it is not within `ack_timeout`."""
        patience = self._uploads.intake.ack_timeout
        trouble = f"no answer within {patience:g} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while True:
                    try:
                        return await work()
                    except StoreUnavailable as error:
                        trouble = str(error)
                    await asyncio.sleep(_PAUSE)
        raise Overloaded(trouble)
