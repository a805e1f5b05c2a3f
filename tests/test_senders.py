"""Real senders to a real daemon, by the blocks of docs/senders.md as they stand there (only ports are replaced)."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import asyncpg
import pytest

ROOT = Path(__file__).parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "loghub"
PAGE = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")
PATIENCE = 120


@dataclass(frozen=True)
class Daemon:
    """A daemon of its own process, and the ports that stand in for the default ones."""

    process: subprocess.Popen[bytes]
    log: Path
    ports: dict[int, int]

    def get(self, path: str, **parameters: object) -> Any:
        url = f"http://127.0.0.1:{self.ports[8000]}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.loads(answer.read())

    def counts(self) -> Counter[str]:
        """Return the number of records by service, as the daemon counts them."""
        counts: Counter[str] = Counter()
        for row in self.get("/logs/aggregations"):
            counts[row["service"]] += row["count"]
        return counts

    def wait_for(self, services: Counter[str]) -> None:
        """Wait until these services have as many records, or more."""
        end = time.monotonic() + PATIENCE
        while not (found := self.counts()) >= services:
            assert self.process.poll() is None, f"the daemon ended:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"after {PATIENCE} s there are {found}, of {services}"
            time.sleep(0.02)

    def records(self, service: str) -> list[dict[str, Any]]:
        """Return all records of a service, the oldest first."""
        records: list[dict[str, Any]] = self.get("/logs", service=service, limit=10_000)
        return records[::-1]

    def here(self, text: str) -> str:
        """Replace the default ports in a block."""
        return re.sub(r"\b(8000|5170|5140)\b", lambda match: str(self.ports[int(match[1])]), text)


def free_ports() -> dict[int, int]:
    """Return a free port, for TCP and UDP, in place of each default one."""
    with ExitStack() as stack:
        chosen = {}
        for port in (8000, 5170, 5140):
            tcp = stack.enter_context(socket.socket())
            tcp.bind(("127.0.0.1", 0))
            udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            udp.bind(tcp.getsockname())
            chosen[port] = tcp.getsockname()[1]
        return chosen


@pytest.fixture
def daemon_process(database_url: str, tmp_path: Path) -> Iterator[Daemon]:
    ports = free_ports()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")} | {
        "LOGAGG_DATABASE_URL": database_url,
        "LOGAGG_HTTP_LISTEN": f"127.0.0.1:{ports[8000]}",
        "LOGAGG_TCP_LISTEN": f"127.0.0.1:{ports[5170]}",
        "LOGAGG_SYSLOG_UDP_LISTEN": f"127.0.0.1:{ports[5140]}",
        "LOGAGG_SYSLOG_TCP_LISTEN": f"127.0.0.1:{ports[5140]}",
    }
    log = tmp_path / "daemon.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "logagg.cli", "serve"], env=variables, cwd=tmp_path, stdout=out, stderr=out
        )
    running = Daemon(process, log, ports)
    try:
        wait_until_ready(running)
        yield running
    finally:
        process.terminate()
        status = process.wait(60)
    assert status == 0, f"the daemon ended with {status}:\n{log.read_text()}"


def wait_until_ready(daemon: Daemon) -> None:
    end = time.monotonic() + PATIENCE
    while daemon.process.poll() is None and time.monotonic() < end:
        try:
            daemon.get("/readyz")
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"the daemon is not ready:\n{daemon.log.read_text()}")


def blocks(heading: str, language: str) -> list[str]:
    """Return the blocks of a language below a heading of the page, up to the next heading."""
    section = re.search(rf"^##+ {re.escape(heading)}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, f"docs/senders.md has no heading {heading!r}"
    found = re.findall(rf"^```{language}\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert found, f"docs/senders.md has no block of {language} below {heading!r}"
    return found


def need(program: str, package: str) -> str:
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not path:
        pytest.skip(f"{program} is not installed (Debian: apt install {package})")
    return path


def shell(text: str) -> None:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"


# --- rsyslog ---------------------------------------------------------------------------------------------------------


def corpus_lines(each: int) -> dict[str, list[str]]:
    """Return so many lines of each file of the corpus, by the name of the file, which becomes the service.

    Only lines that syslog can carry byte for byte: a space at the start is taken for the one that separates a message
    from its header, ends of lines are not part of a message, and rsyslog passes over empty lines. Control characters
    stay as they are, because imfile, unlike rsyslog's network inputs, does not escape them.
    """
    if not CORPUS.is_dir():
        pytest.skip(f"{CORPUS.name} is not there: the corpus is not part of the repository")
    found = {}
    for path in sorted(CORPUS.glob("*_2k.log")):
        lines = path.read_bytes().decode().split("\n")
        usable = (line for line in lines if line and not line.startswith(" ") and not line.endswith(("\r", "\0")))
        found[path.name.removesuffix("_2k.log").lower()] = list(islice(usable, each))
    assert all(len(lines) == each for lines in found.values())
    return found


@contextmanager
def rsyslog(action: str, folder: Path, services: list[str]) -> Iterator[None]:
    """Run a private rsyslogd that follows a file for each service and does `action` with its lines."""
    program = need("rsyslogd", "rsyslog")
    folder.mkdir()
    inputs = []
    for service in services:
        (folder / service).touch()
        inputs.append(f'input(type="imfile" File="{folder / service}" Tag="{service}:" Facility="local3")')
    head = f'global(workDirectory="{folder}" maxMessageSize="64k")\nmodule(load="imfile")\n'
    (folder / "rsyslog.conf").write_text(head + "\n".join(inputs) + "\n" + action)
    with (folder / "rsyslog.out").open("wb") as out:
        process = subprocess.Popen(
            [program, "-n", "-f", folder / "rsyslog.conf", "-i", folder / "rsyslog.pid"], stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(
    ("heading", "at_once"),
    # By UDP 200 lines at a time, and the next when they are stored: that many fit into the kernel's smallest buffer,
    # so none is lost, however slow the machine. By TCP the daemon holds the sender back itself.
    [("TCP, octet-counted", 500), ("TCP, lines", 500), ("UDP", 20)],
)
def test_rsyslog(daemon_process: Daemon, tmp_path: Path, heading: str, at_once: int) -> None:
    lines = corpus_lines(each=500)
    (action,) = blocks(heading, "rsyslog")
    folder = tmp_path / "rsyslog"
    with rsyslog(daemon_process.here(action), folder, list(lines)):
        for start in range(0, 500, at_once):
            for service, texts in lines.items():
                with (folder / service).open("a", newline="") as file:
                    file.writelines(f"{text}\n" for text in texts[start : start + at_once])
            daemon_process.wait_for(Counter(dict.fromkeys(lines, start + at_once)))
    counts = daemon_process.counts()
    assert {service: counts[service] for service in lines} == dict.fromkeys(lines, 500)
    for service, texts in lines.items():
        records = daemon_process.records(service)
        assert Counter(record["message"] for record in records) == Counter(texts)
        assert {(record["facility"], record["level"]) for record in records} == {(19, "NOTICE")}


# --- logger ----------------------------------------------------------------------------------------------------------


def test_logger_as_documented(daemon_process: Daemon) -> None:
    need("logger", "bsdutils")
    (text,) = blocks("logger", "sh")
    shell(daemon_process.here(text))
    daemon_process.wait_for(Counter(backup=5))
    assert sorted((record["level"], record["message"]) for record in daemon_process.records("backup")) == [
        ("ERROR", "no space left on device"),
        ("INFO", "12 files copied"),
        ("NOTICE", "42 files copied"),
        ("NOTICE", "nightly backup begins"),
        ("WARNING", "disk is 90 % full"),
    ]


def test_logger_sends_files_in_each_of_its_forms(daemon_process: Daemon, tmp_path: Path) -> None:
    logger = need("logger", "bsdutils")
    texts = [line for lines in corpus_lines(each=20).values() for line in lines]
    file = tmp_path / "lines"
    file.write_text("".join(f"{text}\n" for text in texts))
    ways = {"udp": ["--udp"], "lines": ["--tcp"], "counted": ["--tcp", "--octet-count"]}
    forms = {f"{way}-{form}": [*ways[way], f"--{form}"] for way in ways for form in ("rfc3164", "rfc5424")}
    server = ["--server", "127.0.0.1", "--port", str(daemon_process.ports[5140])]
    for tag, options in forms.items():
        subprocess.run([logger, *server, *options, "--tag", tag, "--file", file], check=True, timeout=60)
        daemon_process.wait_for(Counter({tag: len(texts)}))
    for tag in forms:
        assert Counter(record["message"] for record in daemon_process.records(tag)) == Counter(texts), tag


# --- Python ----------------------------------------------------------------------------------------------------------


def test_python_as_documented(daemon_process: Daemon) -> None:
    for text in blocks("Python", "python"):
        subprocess.run([sys.executable, "-c", daemon_process.here(text)], check=True, timeout=60)
    daemon_process.wait_for(Counter(shop=2))
    assert sorted((record["level"], record["message"]) for record in daemon_process.records("shop")) == [
        ("ERROR", "card 17 was refused"),
        ("WARNING", "card 17 is about to expire"),
    ]


# --- curl and nc -----------------------------------------------------------------------------------------------------


def test_curl_as_documented(daemon_process: Daemon) -> None:
    need("curl", "curl")
    (text,) = blocks("curl", "sh")
    shell(daemon_process.here(text))
    # No waiting: curl was told that they are stored.
    first, *others = sorted(daemon_process.records("till"), key=lambda record: record["timestamp"])
    assert (first["timestamp"], first["level"]) == ("2026-11-20T10:00:00Z", "ERROR")
    assert [(other["message"], other["attributes"]) for other in others] == [
        ("drawer opened", {"drawer": 3}),
        ("drawer closed", {"drawer": 3}),
    ]


def test_nc_as_documented(daemon_process: Daemon) -> None:
    need("nc", "netcat-openbsd")
    (text,) = blocks("nc", "sh")
    shell(daemon_process.here(text))
    daemon_process.wait_for(Counter(cron=2))
    assert [record["message"] for record in daemon_process.records("cron")] == ["job started", "job ended"]


def test_nc_sends_a_file_of_the_corpus(daemon_process: Daemon, tmp_path: Path) -> None:
    nc = need("nc", "netcat-openbsd")
    lines = corpus_lines(each=500)
    file = tmp_path / "records.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for service, texts in lines.items():
            out.writelines(json.dumps({"service": service, "message": text}) + "\n" for text in texts)
    with file.open("rb") as content:
        subprocess.run([nc, "-N", "127.0.0.1", str(daemon_process.ports[5170])], stdin=content, check=True, timeout=60)
    daemon_process.wait_for(Counter(dict.fromkeys(lines, 500)))
    for service, texts in lines.items():
        assert [record["message"] for record in daemon_process.records(service)] == texts


async def test_a_stopping_daemon_stores_what_was_sent_on_open_connections(
    daemon_process: Daemon, database_url: str
) -> None:
    lines = [b'{"service": "last", "message": "%d"}\n' % number for number in range(1000)]
    with socket.create_connection(("127.0.0.1", daemon_process.ports[5170]), timeout=60) as sender:
        sender.sendall(lines[0])
        daemon_process.wait_for(Counter(last=1))
        sender.sendall(b"".join(lines[1:]))
        daemon_process.process.terminate()
        assert sender.recv(1) == b""  # it says that it stops, and reads on until we close
    assert daemon_process.process.wait(60) == 0
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("select count(*) from logs where service = 'last'") == len(lines)
    finally:
        await connection.close()
