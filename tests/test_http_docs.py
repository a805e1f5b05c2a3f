"""docs/http.md: its blocks run against a daemon, print what it says, and its table has every parameter."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon
    from logagg.tests.test_docs import blocks_of
else:
    from test_docs import blocks_of

PAGE = Path(__file__).parents[1] / "docs" / "http.md"
BLOCKS = list(blocks_of(PAGE))
FILTERS = {"start_time", "end_time", "q", "search", "service", "level", "host", "environment", "source"}


async def test_every_block_does_what_the_page_says(daemon: RunningDaemon, database_url: str, tmp_path: Path) -> None:
    address = f"http://{daemon.listening['http_listen']}"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "LOGAGG_DATABASE_URL": database_url}

    async def run(text: str) -> str:
        endless = "/logs/tail" in text
        text = text.replace("http://127.0.0.1:8000", address).replace("curl -N", "curl --max-time 3 -N")
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-eu", "-o", "pipefail", "-c", text], env=environment, capture_output=True,
            text=True, check=False, timeout=60, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == (28 if endless else 0), f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    said: list[str] = []
    for block in BLOCKS:
        if block.language == "sh":
            said.append(await run(block.text))
        else:
            assert json.loads(said[-1]) == json.loads(block.text), block.place
    _, search, pages, _, counts, context, _, tail, _, token = said
    assert re.findall(r'"message":"(.*?)"', search) == [
        *("order 3 failed", "order 2 paid", "order 1 paid", "order 3 failed"),
    ]
    assert re.findall(r'"message":"order (\d)', pages) == ["3", "2", "1"]
    assert '"total_count":1' in search
    assert all(text in counts for text in ('"p99":', '"interval_seconds":60', '"order <*> ', '"pattern"'))
    assert context.count("order 3 failed") == 2
    assert context.count("order 2 paid") == 1
    assert len((tmp_path / "shop.csv").read_text().splitlines()) == 4
    assert tail.count("data:") == 2
    assert "no route to host" in token


async def test_the_table_has_every_parameter(daemon: RunningDaemon) -> None:
    rows = re.findall(r"^\| `(/logs[^`]*)` \| (.*?) ?\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    said = {path: set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", text))) for path, text in rows}
    async with daemon.http.get("/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    asked = {
        path: {each["name"] for each in methods["get"]["parameters"] if each["in"] == "query"}
        for path, methods in paths.items()
        if path.startswith("/logs") and "get" in methods
    }
    assert said == {path: more for path, names in asked.items() if (more := names - FILTERS - {"stats"})}
