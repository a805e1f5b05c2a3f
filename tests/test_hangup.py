"""A question whose client is gone is given up; one that is waited for is not."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import ClientSession, web

from logagg.query.hangup import Handler, while_wanted


async def test_it_ends_with_its_client() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def forever(request: web.Request, query: None, body: None) -> web.StreamResponse:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def soon(request: web.Request, query: None, body: None) -> web.StreamResponse:
        await asyncio.sleep(0.5)  # longer than between two looks
        return web.Response(text="here")

    def served(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            return await while_wanted(handler)(request, None, None)

        return answer

    app = web.Application()
    app.router.add_get("/forever", served(forever))
    app.router.add_get("/soon", served(soon))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as http:
        question = asyncio.create_task(http.get("/forever"))
        await started.wait()
        assert await (await http.get("/soon")).text() == "here"
        assert not ended.is_set()
        question.cancel()
        async with asyncio.timeout(30):
            await ended.wait()
    await runner.cleanup()
