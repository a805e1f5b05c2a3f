"""What is said of a query that found nothing, at a whole daemon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from logagg.cli.main import cli

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon


@pytest.mark.parametrize("command", ["aggregate", "histogram", "search"])
async def test_a_field_that_is_no_column_but_reads_like_one(daemon: RunningDaemon, command: str) -> None:
    async with daemon.http.post("/ingest", json={"message": "m", "host": "web", "hosts": "a"}) as answer:
        assert answer.status == 200
    for query, meant in [
        ("hsot:web", {"hsot": "host"}),
        ("m app=x -svc:y", {"app": "service"}),
        ("Host:a or lvl>=5", {"Host": "host", "lvl": "level"}),
        ("usr.id:4 or host:other or attributes.host:x", {}),
        ("hosts:a", {}),  # is found
    ]:
        asked = [command, "--url", f"http://{daemon.listening['http_listen']}", query]
        result = await asyncio.to_thread(CliRunner().invoke, cli, asked)
        assert result.exit_code == (1 if command == "search" and query != "hosts:a" else 0)
        assert result.stderr.splitlines() == [
            f"{name} is no column, so an attribute was looked for; did you mean {column}?"
            for name, column in meant.items()
        ]


async def test_what_is_counted_by(daemon: RunningDaemon) -> None:
    async with daemon.http.post("/ingest", json={"message": "m", "service": "web", "hsot": "a"}) as answer:
        assert answer.status == 200
    for by, said in [
        ("servce, level", "servce is no column, so an attribute was looked for; did you mean service?\n"),
        ("service,host,usr.id,hsot", ""),  # host is a column, and one record has hsot
    ]:
        asked = ["aggregate", "--url", f"http://{daemon.listening['http_listen']}", "--by", by]
        assert (await asyncio.to_thread(CliRunner().invoke, cli, asked)).stderr == said
