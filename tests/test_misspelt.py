"""What is said of a query that found nothing, at a whole daemon: in the terminal, and over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from logagg.cli.main import cli

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon


def hint(meant: dict[str, str]) -> str:
    return " ".join(
        f"{name} is no column, so an attribute was looked for; did you mean {column}?" for name, column in meant.items()
    )


@pytest.mark.parametrize("command", ["aggregate", "histogram", "patterns", "search", "search --count"])
async def test_a_field_that_is_no_column_but_reads_like_one(daemon: RunningDaemon, command: str) -> None:
    async with daemon.http.post("/ingest", json={"message": "m", "host": "web", "hosts": "a"}) as answer:
        assert answer.status == 200
    for query, meant in [
        ("hsot:web", {"hsot": "host"}),
        ("m app=x -svc:y", {"app": "service"}),
        ("Host:a or lvl>=5", {"Host": "host", "lvl": "level"}),
        ('"höst":a', {"h\\u00f6st": "host"}),  # as a header can hold it
        ("usr.id:4 or host:other or attributes.host:x", {}),
        ("hosts:a", {}),  # is found
    ]:
        asked = [*command.split(), "--url", f"http://{daemon.listening['http_listen']}", query]
        result = await asyncio.to_thread(CliRunner().invoke, cli, asked)
        assert result.exit_code == (1 if "search" in command and query != "hosts:a" else 0)
        said = [line for line in result.stderr.splitlines() if not line.startswith("...")]
        assert said == ([hint(meant)] if meant else [])


async def test_what_is_counted_by(daemon: RunningDaemon) -> None:
    async with daemon.http.post("/ingest", json={"message": "m", "service": "web", "hsot": "a"}) as answer:
        assert answer.status == 200
    for by, meant in [
        ("servce, level", {"servce": "service"}),
        ("service,host,usr.id,hsot", {}),  # host is a column, and one record has hsot
    ]:
        asked = ["aggregate", "--url", f"http://{daemon.listening['http_listen']}", "--by", by]
        said = (await asyncio.to_thread(CliRunner().invoke, cli, asked)).stderr
        assert said == (f"{hint(meant)}\n" if meant else "")


async def test_over_http_it_is_a_header(daemon: RunningDaemon) -> None:
    async with daemon.http.post("/ingest", json=[{"message": "m", "hots": "a"}] * 2) as answer:
        assert answer.status == 200
    for path, said in [
        ("/logs?q=hsot:web", hint({"hsot": "host"})),
        ("/logs/search?q=hsot:web", hint({"hsot": "host"})),
        ("/logs/search?q=hots:a&offset=5", None),  # there are some, before these
        ("/logs?q=hots:a&limit=1", None),
        ("/logs?search=hsot:web", None),  # words are no query
        ("/logs?q=m&service=hsot", None),
    ]:
        async with daemon.http.get(path) as answer:
            assert (answer.status, answer.headers.get("X-Logagg-Hint")) == (200, said)
