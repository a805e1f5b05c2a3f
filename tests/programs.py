"""Programs that log, for tests of senders: blocks of docs/senders.md, run as they stand there but for the ports."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from logagg.sinks.embedded import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logagg.tests.daemons import RunningDaemon
    from logagg.tests.senders import PORTS, blocks
else:
    from senders import PORTS, blocks

PATIENCE = 60
#: Texts by which formats are easily broken.
ODD = ['Grüße, 日本 \U0001f600 "quoted" \\ <b>&</b> {} a=b', "-", "x" * 5000]


def block(heading: str, number: int = 0) -> str:
    """Return a block of Python below a heading of the page."""
    return blocks(heading, "python")[number]


def more(count: int) -> str:
    """Return a program that logs more by the logger of a block: so many lines, and ODD."""
    return f"""
for number in range({count}):
    logging.getLogger("shop").warning("line %d", number)
for text in {ODD!r}:
    logging.getLogger("shop").critical("%s", text)
"""


def begin(daemon: RunningDaemon, text: str, setting: str, *, content: bool = True) -> asyncio.Task[None]:
    """Run a program with the port of a listener in place of the default one; if `content`, it must not complain."""
    assert str(PORTS[setting]) in text
    text = re.sub(rf"\b{PORTS[setting]}\b", str(daemon.listening[setting].port), text)
    return asyncio.create_task(_run(text, content=content))


async def _run(text: str, *, content: bool) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, complaints = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, complaints.decode()
    if content:
        assert (out, complaints) == (b"", b"")


async def arrived(daemon: RunningDaemon, count: int) -> list[dict[str, Any]]:
    """Return all records, the oldest first, once there are so many."""
    async with asyncio.timeout(PATIENCE):
        while len(found := await daemon.logs(order="oldest", limit="10000")) < count:
            await asyncio.sleep(0.02)
    return found


@contextmanager
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that can be stopped and started, apart from that of the other tests."""
    folder = TemporaryDirectory(prefix="logagg-test-", dir="/tmp", ignore_cleanup_errors=True)
    with folder as place, EmbeddedPostgres(Path(place)) as running:
        yield running
