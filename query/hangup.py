"""A question that nobody waits for any more is given up, so that the next one has its turn and the processor."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

#: Seconds after which it is looked whether the client is still there, and again and again.
_LOOK = 0.2
#: What nginx calls a client that closed the connection; nobody gets to read it.
_GONE = 499

Handler = Callable[[web.Request, Any, Any], Awaitable[web.StreamResponse]]


def while_wanted(handler: Handler) -> Handler:
    """Return the handler, as one that is cancelled when the client closes the connection. Only for what reads."""

    async def answer(request: web.Request, query: Any, body: Any) -> web.StreamResponse:
        work = asyncio.ensure_future(handler(request, query, body))
        try:
            while not (await asyncio.wait([work], timeout=_LOOK))[0]:
                if request.transport is None or request.transport.is_closing():
                    return web.Response(status=_GONE)
            return await work
        finally:
            work.cancel()

    return answer
