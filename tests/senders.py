"""What the tests of docs/senders.md share: the page's blocks, the programs that they are for, and a daemon."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from logagg.collector.settings import Settings

ROOT = Path(__file__).parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "loghub"
PAGE = (ROOT / "docs" / "senders.md").read_text(encoding="utf-8")
PATIENCE = 120

#: Default ports, by the settings that say where to listen.
PORTS: dict[str, int] = {
    name: field.default.port
    for name, field in Settings.model_fields.items()
    if name.endswith("_listen") and field.default
}
#: The usual port of what is off by default.
TLS_PORT = 6514


@dataclass(frozen=True)
class Daemon:
    """A daemon of its own process, and the ports that stand in for the default ones."""

    process: subprocess.Popen[bytes]
    log: Path
    ports: Mapping[int, int]

    def get(self, path: str, **parameters: object) -> Any:
        """Return what the daemon answers over HTTP."""
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

    def wait_received(self, transport: str, count: int) -> None:
        """Wait until so many records were received, stored or not."""
        url = f"http://127.0.0.1:{self.ports[8000]}/metrics"
        received = re.compile(rf'^logagg_records_received_total{{transport="{transport}"}} (\S+)$', re.MULTILINE)
        end = time.monotonic() + PATIENCE
        while True:
            with urllib.request.urlopen(url, timeout=30) as answer:
                found = received.search(answer.read().decode())
            if found and float(found[1]) >= count:
                return
            assert time.monotonic() < end, f"after {PATIENCE} s: {found and found[0]}, of {count}"
            time.sleep(0.02)

    def records(self, service: str) -> list[dict[str, Any]]:
        """Return all records of a service, the oldest first."""
        records: list[dict[str, Any]] = self.get("/logs", service=service, limit=10_000)
        return records[::-1]

    def here(self, text: str) -> str:
        """Replace the default ports in a block."""
        return on_ports(text, self.ports)


def on_ports(text: str, ports: Mapping[int, int]) -> str:
    """Replace the default ports in a text by those given."""
    return re.sub(rf"\b({'|'.join(map(str, ports))})\b", lambda match: str(ports[int(match[1])]), text)


def free_ports() -> dict[int, int]:
    """Return a free port, for TCP and UDP, in place of each default one.

    None of those that the kernel gives to connections: between now and the daemon's start it would take some.
    """
    with ExitStack() as stack:
        chosen = {}
        for port in {*PORTS.values(), TLS_PORT}:
            while port not in chosen:
                with suppress(OSError):
                    address = "127.0.0.1", 10_000 + secrets.randbelow(20_000)
                    stack.enter_context(socket.socket()).bind(address)
                    stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind(address)
                    chosen[port] = address[1]
        return chosen


@contextmanager
def serving(database_url: str, folder: Path, settings: str = "") -> Iterator[Daemon]:
    """Run a daemon with all its listeners; `settings` is the text of its file."""
    ports = free_ports()
    (folder / "logagg.toml").write_text(on_ports(settings, ports))
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")} | {
        "LOGAGG_CONFIG": str(folder / "logagg.toml"),
        "LOGAGG_DATABASE_URL": database_url,
        "LOGAGG_DATA_DIR": str(folder / "data"),
        **{f"LOGAGG_{name.upper()}": f"127.0.0.1:{ports[port]}" for name, port in PORTS.items()},
    }
    log = folder / "daemon.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "logagg.cli", "serve"], env=variables, cwd=folder, stdout=out, stderr=out
        )
    running = Daemon(process, log, ports)
    try:
        _wait_until_ready(running)
        yield running
    finally:
        process.terminate()
        status = process.wait(60)
    assert status == 0, f"the daemon ended with {status}:\n{log.read_text()}"


def _wait_until_ready(daemon: Daemon) -> None:
    end = time.monotonic() + PATIENCE
    while daemon.process.poll() is None and time.monotonic() < end:
        try:
            daemon.get("/readyz")
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"the daemon is not ready:\n{daemon.log.read_text()}")


# --- The page --------------------------------------------------------------------------------------------------------


def section(heading: str) -> str:
    """Return what stands below a heading of the page, up to the next heading."""
    found = re.search(rf"^##+ {re.escape(heading)}$(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/senders.md has no heading {heading!r}"
    return found[1]


def blocks(heading: str, language: str) -> list[str]:
    """Return the blocks of a language below a heading of the page, up to the next heading."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", section(heading), re.MULTILINE | re.DOTALL)
    assert found, f"docs/senders.md has no block of {language} below {heading!r}"
    return found


# --- Programs --------------------------------------------------------------------------------------------------------


def need(program: str, package: str) -> str:
    """Return the path of a program; skip the test where it is not installed."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not path:
        pytest.skip(f"{program} is not installed (Debian: apt install {package})")
    return path


def shell(text: str) -> None:
    """Run a block of shell, any part of which must succeed."""
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a program at the end, and wait for it."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def corpus_lines(each: int) -> dict[str, list[str]]:
    """Return so many lines of each file of the corpus, by the name of the file, which becomes the service.

    Only lines that syslog can carry byte for byte: a space at the start is taken for the one that separates a message
    from its header, ends of lines are not part of a message, and rsyslog passes over empty lines.
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


def append(daemon: Daemon, folder: Path, lines: Mapping[str, list[str]], at_once: int) -> None:
    """Write lines to the files of their services, so many of each at once, and the next when those are stored."""
    total = max(len(texts) for texts in lines.values())
    for start in range(0, total, at_once):
        for service, texts in lines.items():
            with (folder / service).open("a", newline="") as file:
                file.writelines(f"{text}\n" for text in texts[start : start + at_once])
        daemon.wait_for(Counter(dict.fromkeys(lines, start + at_once)))


def assert_stored(daemon: Daemon, lines: Mapping[str, list[str]], level: str) -> None:
    """All lines are there, once and as they were, from facility local3."""
    counts = daemon.counts()
    assert {service: counts[service] for service in lines} == {name: len(texts) for name, texts in lines.items()}
    for service, texts in lines.items():
        records = daemon.records(service)
        assert Counter(record["message"] for record in records) == Counter(texts)
        assert {(record["facility"], record["level"]) for record in records} == {(19, level)}
        assert all(record["host"] for record in records)


# --- TLS -------------------------------------------------------------------------------------------------------------


def make_certificates(folder: Path) -> str:
    """Write what the blocks below TLS need into a folder; return the daemon's settings with these files."""
    need("openssl", "openssl")
    (settings,), (commands,) = blocks("TLS", "toml"), blocks("TLS", "sh")
    shell(f"cd {folder}\n{commands}")
    return in_folder(settings, folder)


def in_folder(text: str, folder: Path) -> str:
    """Replace the folders of certificates in a block."""
    return re.sub(r"/etc/(ssl/)?logagg/", f"{folder}/", text)
