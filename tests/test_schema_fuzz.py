"""Whatever the OpenAPI document allows, and what it does not: no request is answered with a fault of ours."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logagg.tests.daemons import Starter

PROGRAM = Path(sys.executable).with_name("schemathesis")


async def test_no_request_is_a_server_error(start_daemon: Starter, tmp_path: Path) -> None:
    daemon = await start_daemon(query_timeout="5s")
    url = f"http://{daemon.listening['http_listen']}"
    async with daemon.http.post("/ingest", json=[{"message": f"hello {number}", "n": number} for number in range(50)]):
        pass
    command = [
        *(str(PROGRAM), "run", f"{url}/openapi.json", "--checks=not_a_server_error"),
        *(
            "--phases=examples,coverage,fuzzing",
            "--max-examples=15",
            "--seed=1",
            "--generation-database=none",
            "--no-color",
            "--request-timeout=20",
        ),
        *("--exclude-path=/logs/tail", "--exclude-path=/upload"),  # they have no end
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found, done.stdout[-2000:]
    assert found[1] == found[2]
    assert int(found[1]) > 500
