"""`logagg tail` against daemons that are stopped and started again: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logagg.tests.processes import PATIENCE, free_port, process, wait_ready
else:
    from processes import PATIENCE, free_port, process, wait_ready


def send(port: int, *numbers: int) -> None:
    body = "".join(json.dumps({"message": f"m{n}", "service": "tailed"}) + "\n" for n in numbers).encode()
    body += b'{"message": "another", "service": "other"}\n'
    urllib.request.urlopen(f"http://127.0.0.1:{port}/ingest", body, timeout=PATIENCE).close()


def test_a_tail_lives_through_a_restart_and_a_kill(database_url: str) -> None:
    port = free_port()
    daemon = {"http_listen": f"127.0.0.1:{port}", "database_url": database_url}
    command = [sys.executable, "-m", "logagg.cli", "tail", "service=tailed", "-n", "2", "-o", "raw"]
    with process(**daemon) as first:
        wait_ready(port)
        send(port, 1, 2, 3)
        tail = subprocess.Popen(
            [*command, "--url", f"http://127.0.0.1:{port}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert tail.stdout and tail.stderr  # noqa: PT018 -- for mypy
        watch = threading.Timer(PATIENCE, tail.kill)  # a line that never comes is a failure, not a hang
        watch.start()
        try:
            assert [tail.stdout.readline() for _ in range(2)] == ["m2\n", "m3\n"]
            send(port, 4)
            assert tail.stdout.readline() == "m4\n"
            first.send_signal(signal.SIGTERM)
            first.wait(PATIENCE)
            with process(**daemon) as second:
                wait_ready(port)
                send(port, 5, 6)
                assert [tail.stdout.readline() for _ in range(2)] == ["m5\n", "m6\n"]
                second.kill()
                second.wait(PATIENCE)
            with process(**daemon):
                wait_ready(port)
                send(port, 7)
                assert tail.stdout.readline() == "m7\n"
                tail.send_signal(signal.SIGINT)
                assert tail.stdout.read() == ""
                assert tail.stderr.read().count("trying again\n") == 2
                assert tail.wait(PATIENCE) == 130
        finally:
            watch.cancel()
            tail.kill()
            tail.communicate()
