"""docs/command-line.md: what it says is printed is printed, and what it says to run runs; by the daemon itself."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon

PAGE = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text(encoding="utf-8")
RECORDS = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[-1]
SHOWN = re.findall(r"^```text\n\$ (logagg .*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def environment(daemon: RunningDaemon) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"LOGAGG_URL": f"http://{daemon.listening['http_listen']}", "PATH": path, "COLUMNS": "80"}


async def shell(daemon: RunningDaemon, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, ["bash", "-eu", "-c", text], env=environment(daemon), capture_output=True, text=True,
        check=False, timeout=60, cwd=folder,
    )  # fmt: skip


async def send(daemon: RunningDaemon, records: str) -> None:
    async with daemon.http.post("/ingest", data=records.encode()) as answer:
        assert answer.status == 200, await answer.text()


async def test_the_page_of_the_command_line(daemon: RunningDaemon, tmp_path: Path) -> None:
    await send(daemon, RECORDS)
    assert len(SHOWN) > 6
    for call, expected in SHOWN:
        done = await shell(daemon, call, tmp_path)
        assert (done.stdout, done.stderr) == (expected, ""), call
    runs = [line for block in SHELL for line in block.splitlines() if "tail" not in line and "--follow" not in line]
    for line in runs:
        done = await shell(daemon, line, tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert len((tmp_path / "members.jsonl").read_text().splitlines()) == 4
