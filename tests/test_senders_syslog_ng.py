"""The real syslog-ng and its loggen to a real daemon, by the blocks of docs/senders.md as they stand there.

Debian's syslog-ng and rsyslog cannot both be installed; .ci/run unpacks syslog-ng and its libraries where FOLDER says.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from logagg.tests.senders import (
        ROOT,
        Daemon,
        append,
        assert_stored,
        blocks,
        corpus_lines,
        ended,
        in_folder,
        make_certificates,
        need,
        serving,
        shell,
    )
else:
    from senders import (
        ROOT,
        append,
        assert_stored,
        blocks,
        corpus_lines,
        ended,
        in_folder,
        make_certificates,
        need,
        serving,
        shell,
    )

FOLDER = ROOT / ".venv" / "syslog-ng"


@pytest.fixture
def daemon_process(database_url: str, tmp_path: Path) -> Iterator[Daemon]:
    with serving(database_url, tmp_path) as daemon:
        yield daemon


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs find the syslog-ng that is not installed, if there is one."""
    if not FOLDER.is_dir():
        return  # an installed one will do
    libraries = sorted({str(path.parent) for path in FOLDER.glob("**/*.so.*")})
    monkeypatch.setenv("SYSLOGNG_PREFIX", str(FOLDER / "usr"))
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(libraries))
    monkeypatch.setenv("PATH", f"{FOLDER}/usr/bin:{FOLDER}/usr/sbin:{os.environ['PATH']}")


@contextmanager
def syslog_ng(destination: str, folder: Path, services: Sequence[str]) -> Iterator[None]:
    """Run a private syslog-ng, whose source `s_src` follows a file for each service."""
    program = need("syslog-ng", "syslog-ng-core")
    folder.mkdir()
    files = []
    for service in services:
        (folder / service).touch()
        files.append(
            f'file("{folder / service}" flags(no-parse) follow-freq(0.1) log-msg-size(65536)'
            f' program-override("{service}") default-facility(local3) default-priority(warning));'
        )
    text = "\n".join(["@version: current", "source s_src {", *files, "};", destination])
    (folder / "syslog-ng.conf").write_text(text.replace("/var/lib/syslog-ng", str(folder)))
    places = {"-f": "syslog-ng.conf", "-R": "persist", "-p": "pid", "-c": "control"}
    options = [word for option, name in places.items() for word in (option, str(folder / name))]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen([program, "-F", "--no-caps", *options], stdout=out, stderr=out)
        with ended(process):
            yield
    assert process.returncode == 0, (folder / "out").read_text()


def send(daemon: Daemon, folder: Path, destination: str, at_once: int = 500) -> None:
    lines = corpus_lines(each=500)
    with syslog_ng(daemon.here(destination), folder, list(lines)):
        append(daemon, folder, lines, at_once)
    assert_stored(daemon, lines, level="WARNING")


@pytest.mark.usefixtures("unpacked")
@pytest.mark.parametrize(
    ("heading", "at_once"),
    # By UDP in portions that fit into the kernel's smallest buffer, so that none is lost.
    [("syslog-ng over TCP", 500), ("syslog-ng over TCP, lines", 500), ("syslog-ng over UDP", 20)],
)
def test_syslog_ng(daemon_process: Daemon, tmp_path: Path, heading: str, at_once: int) -> None:
    (destination,) = blocks(heading, "syslog-ng")
    send(daemon_process, tmp_path / "syslog-ng", destination, at_once)


@pytest.mark.usefixtures("unpacked")
def test_syslog_ng_over_tls(database_url: str, tmp_path: Path) -> None:
    (destination,) = blocks("syslog-ng over TLS", "syslog-ng")
    settings = make_certificates(tmp_path)
    with serving(database_url, tmp_path, settings) as daemon:
        send(daemon, tmp_path / "syslog-ng", in_folder(destination, tmp_path))


@pytest.mark.usefixtures("unpacked")
def test_loggen(daemon_process: Daemon) -> None:
    need("loggen", "syslog-ng-core")
    (text,) = blocks("loggen", "sh")
    shell(daemon_process.here(text))
    daemon_process.wait_for(Counter(prg00000=300))
    records = daemon_process.records("prg00000")
    numbers = Counter(int(record["message"].removeprefix("seq: ")[:10]) for record in records)
    assert numbers == Counter(dict.fromkeys(range(100), 3))
    assert {(record["host"], record["facility"], record["level"]) for record in records} == {("localhost", 4, "INFO")}
    assert {record["attributes"]["procid"] for record in records} == {"1234"}
