"""Reading the body of a request: with a limit for one, a limit for all that are being read, and a limit of time."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final, TypeVar

from aiohttp import web

from logagg.protocols.encodings import EncodingError, decompress
from logagg.protocols.limits import TooLarge, check_parts
from logagg.sinks.errors import StoreUnavailable

#: A body of more bytes is decoded beside the loop, which answers others meanwhile; it costs a millisecond or so.
LARGE: Final = 1 << 20
#: Such bodies may become so much larger that they are decompressed there, too.
_LARGE_COMPRESSED: Final = LARGE // 16

_Made = TypeVar("_Made")


class Bodies:
    """Reads bodies for every route of an application; `app[BODIES]`."""

    def __init__(self, *, limit: int, limit_of_all: int, patience: float) -> None:
        """Take at most `limit` bytes a body, `limit_of_all` bytes of all bodies at once, and `patience` seconds."""
        self.limit = limit
        self._limit_of_all = limit_of_all
        self._patience = patience
        self._held = 0
        self._beside = asyncio.Lock()
        #: Entered around what is made of a body, with its bytes as they came: where traces are made.
        self.around: Callable[[int], AbstractContextManager[object]] = lambda _: nullcontext()

    async def decode(self, request: web.Request, decode: Callable[[bytes], _Made]) -> _Made:
        """Return what `decode` makes of the whole body, decompressed.

        Large ones are decoded in a thread, one at a time, so that the memory which that takes is taken once. Raises
        what `decode` raises, HTTPRequestEntityTooLarge (413), HTTPBadRequest (400) for a body that is not what its
        Content-Encoding says, HTTPRequestTimeout (408), and StoreUnavailable (503) when too much is being read already.
        """
        content = request.content
        encoding = request.headers.get("Content-Encoding", "")
        size = 0
        try:
            if content.is_eof():  # it came with the head, as small ones do; a limit of time would cost more than it
                body = content.read_nowait()
                self._check(len(body))
            else:
                parts: list[bytes] = []
                async with asyncio.timeout(self._patience):
                    async for part in content.iter_any():
                        parts.append(part)
                        size += len(part)
                        self._held += len(part)
                        self._check(size)
                body = b"".join(parts)
                del parts
            if len(body) > (_LARGE_COMPRESSED if encoding else LARGE):
                async with self._beside:
                    return await asyncio.to_thread(self._decoded, body, encoding, decode)
            return self._decoded(body, encoding, decode)
        except TimeoutError:
            text = f"{size} bytes of the body arrived within {self._patience:g} s, and not its end"
            raise web.HTTPRequestTimeout(reason=text) from None
        except TooLarge as error:
            raise web.HTTPRequestEntityTooLarge(self.limit, size, text=str(error)) from None
        except EncodingError as error:
            raise web.HTTPBadRequest(reason=str(error)) from None
        finally:
            self._held -= size

    def _decoded(self, body: bytes, encoding: str, decode: Callable[[bytes], _Made]) -> _Made:
        with self.around(len(body)):
            if encoding:
                body = decompress(body, encoding, self.limit)
            check_parts(body)
            return decode(body)

    def _check(self, size: int) -> None:
        if size > self.limit:
            raise TooLarge(f"body of {size} bytes or more, at most {self.limit}")
        if self._held > self._limit_of_all:
            raise StoreUnavailable(f"{self._held} bytes of bodies are being read, at most {self._limit_of_all}")


BODIES = web.AppKey("BODIES", Bodies)
