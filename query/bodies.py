"""Reading the body of a request: with a limit for one, a limit for all that are being read, and a limit of time."""

import asyncio

from aiohttp import web

from logagg.protocols.encodings import EncodingError, TooLarge, decompress
from logagg.sinks.errors import StoreUnavailable


class Bodies:
    """Reads bodies for every route of an application; `app[BODIES]`."""

    def __init__(self, *, limit: int, limit_of_all: int, patience: float) -> None:
        """Take at most `limit` bytes a body, `limit_of_all` bytes of all bodies at once, and `patience` seconds."""
        self.limit = limit
        self._limit_of_all = limit_of_all
        self._patience = patience
        self._held = 0

    async def read(self, request: web.Request) -> bytes:
        """Return the whole body, decompressed.

        Raises HTTPRequestEntityTooLarge (413), HTTPBadRequest (400) for a body that is not what its Content-Encoding
        says, HTTPRequestTimeout (408), and StoreUnavailable (503) when too much is being read already.
        """
        content = request.content
        parts: list[bytes] = []
        size = 0
        try:
            if content.is_eof():  # it came with the head, as small ones do; a limit of time would cost more than it
                body = content.read_nowait()
                self._check(len(body))
            else:
                async with asyncio.timeout(self._patience):
                    async for part in content.iter_any():
                        parts.append(part)
                        size += len(part)
                        self._held += len(part)
                        self._check(size)
                body = b"".join(parts)
            encoding = request.headers.get("Content-Encoding", "")
            return decompress(body, encoding, self.limit) if encoding else body
        except TimeoutError:
            text = f"{size} bytes of the body arrived within {self._patience:g} s, and not its end"
            raise web.HTTPRequestTimeout(reason=text) from None
        except TooLarge as error:
            raise web.HTTPRequestEntityTooLarge(self.limit, size, text=str(error)) from None
        except EncodingError as error:
            raise web.HTTPBadRequest(reason=str(error)) from None
        finally:
            self._held -= size

    def _check(self, size: int) -> None:
        if size > self.limit:
            raise TooLarge(f"body of {size} bytes or more, at most {self.limit}")
        if self._held > self._limit_of_all:
            raise StoreUnavailable(f"{self._held} bytes of bodies are being read, at most {self._limit_of_all}")


BODIES = web.AppKey("BODIES", Bodies)
