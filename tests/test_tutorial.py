"""docs/tutorial.md, from nothing to rsyslog's lines on the page: its commands as they stand there, but for the ports.

What a test may not touch is kept away from it by programs of the same name in front of the others: `sudo` does without,
`systemctl` restarts a rsyslogd of the test's own, `logger` writes to that one's socket.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logagg.tests.processes import wait_ready
    from logagg.tests.senders import PORTS, free_ports, need, on_ports
else:
    from processes import wait_ready
    from senders import PORTS, free_ports, need, on_ports

ROOT = Path(__file__).parents[1]
LINES = {"order 1 paid", "order 2 paid", "order 3 paid", "order 4 failed: card declined"}
SHIMS = {
    "sudo": 'exec "$@"',
    "logger": 'exec {logger} --socket {folder}/log "$@"',
    "systemctl": """
[ "$*" = "restart rsyslog" ]
exec {rsyslogd} -f {folder}/rsyslog.conf -i {folder}/rsyslog.pid
""",
}
#: Its own, and nobody's journal: everything that comes to the socket, which is not /dev/log.
RSYSLOG = """
global(workDirectory="{folder}")
module(load="imuxsock" sysSock.use="off")
input(type="imuxsock" Socket="{folder}/log" createPath="on")
include(file="{folder}/rsyslog.d/*.conf")
"""


def steps() -> list[str]:
    """Return the shell blocks of the page: to install, to start, and the others."""
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "tutorial.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A checkout without an environment, a private rsyslog, and what stands in front of the programs."""
    programs = {"rsyslogd": need("rsyslogd", "rsyslog"), "logger": need("logger", "bsdutils")}
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored)
    (tmp_path / "rsyslog.d").mkdir()
    (tmp_path / "rsyslog.conf").write_text(RSYSLOG.format(folder=tmp_path))
    (tmp_path / "bin").mkdir()
    for name, text in SHIMS.items():
        shim = tmp_path / "bin" / name
        shim.write_text(f"#!/bin/sh -eu\n{text.format(folder=tmp_path, **programs)}\n")
        shim.chmod(0o755)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    yield tmp_path
    pid = tmp_path / "rsyslog.pid"
    if pid.exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.fixture
def variables(folder: Path) -> Iterator[dict[str, str]]:
    """What keeps the page away from a real daemon and its data, and spares it the network.

    The packages that it depends on are those of the environment that the tests run in. (The editable install there
    stays out of sight: PYTHONPATH minds no .pth files.)
    """
    ports = free_ports()
    # Not in pytest's folder: as root, the embedded PostgreSQL runs as another user, who cannot reach that.
    with tempfile.TemporaryDirectory(prefix="logagg-", dir="/tmp", ignore_cleanup_errors=True) as data:
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")},
            **{f"LOGAGG_{name.upper()}": f"127.0.0.1:{ports[port]}" for name, port in PORTS.items()},
            "LOGAGG_DATA_DIR": data,
            "LOGAGG_URL": f"http://127.0.0.1:{ports[8000]}",
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that the option is on
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }


def test_the_tutorial_leads_from_nothing_to_the_lines_on_the_page(folder: Path, variables: dict[str, str]) -> None:
    ports = {port: int(variables[f"LOGAGG_{name.upper()}"].rpartition(":")[2]) for name, port in PORTS.items()}
    install, start, *others = [
        on_ports(text, ports).replace("/etc/rsyslog.d", str(folder / "rsyslog.d")) for text in steps()
    ]
    checkout, log = folder / "checkout", folder / "daemon.log"
    bash(install, checkout, variables)
    with log.open("w") as out:
        daemon = subprocess.Popen(["bash", "-c", f"exec {start}"], cwd=checkout, env=variables, stdout=out, stderr=out)
    try:
        wait_ready(ports[8000])
        said = bash("\n".join(map(and_wait, others)), checkout, variables)
        token = said.splitlines()[-1]
        assert all(line in said for line in (*LINES, "order <*> paid")), said
        on_the_page(variables["LOGAGG_URL"], token)
    finally:
        daemon.send_signal(signal.SIGINT)
        assert daemon.wait(60) == 0
    assert "Traceback" not in log.read_text()


def bash(text: str, folder: Path, variables: dict[str, str]) -> str:
    """Run a text of shell, any part of which must succeed; what it printed."""
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", text],
        cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def and_wait(block: str) -> str:
    """Do after a block that logs what a reader does by typing: give the lines a moment to arrive."""
    if "logger " not in block:
        return block
    there = 'curl -sS "$LOGAGG_URL/logs?service=shop" | grep -o order | wc -l'
    return f'{block}until [ "$({there})" -ge {len(LINES)} ]; do sleep 0.1; done\n'


def on_the_page(url: str, token: str) -> None:
    """Look at the page as somebody who has the token."""
    program = need("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(http_credentials={"username": "any", "password": token})
        page.goto(f"{url}/?q=order")
        for line in LINES:
            expect(page.locator("#results > li").filter(has_text=line)).to_have_count(1, timeout=30_000)
        page.locator("#results summary").first.click()
        expect(page.locator(".context li")).to_have_count(0)
        page.get_by_role("button", name="Context").click()
        expect(page.locator(".context li").filter(has_text="order 1 paid")).to_have_count(1, timeout=30_000)
        browser.close()
