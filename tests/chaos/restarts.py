"""The daemon is restarted under a sender that does not wait: its sockets are held open, as systemd holds them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .harness import PATIENCE, Daemon, Postgres
from .scenario import Outcome, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from logagg.tests.processes import environment
else:
    from processes import environment

#: A second: lines that rsyslog is given, and datagrams.
LINES, DATAGRAMS = 2000, 500
#: omfwd as it is when nothing is said but where to send to: no retries, no queue of its own, lines over TCP.
RSYSLOG = """
global(workDirectory="{folder}")
module(load="imfile")
input(type="imfile" File="{folder}/lines" Tag="lines:")
*.* @@127.0.0.1:{port}
"""
#: Starts the daemon as systemd does: the sockets are 3 and 4, and LISTEN_PID is the process itself.
AS_SYSTEMD = """
import os, sys
for place, number in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(number, place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "logagg.cli", "serve"])
"""
#: Asked of the kernel for datagrams: it holds some four thousand, and a restart takes two seconds or three.
RECEIVE_BUFFER = 8 << 20
#: socket(7); Python has no name for it.
SO_RCVBUFFORCE = 33
#: Seconds without a new record after which what is missing will not come: rsyslog tries again after 30 s at the latest.
QUIET = 35.0


@contextmanager
def held_open() -> Iterator[dict[str, socket.socket]]:
    """Give listening sockets that outlive the daemons, by the settings that they stand for."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        with suppress(PermissionError):  # as root, as systemd: whatever net.core.rmem_max says
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        udp.bind(("127.0.0.1", 0))
        yield {"syslog_tcp_listen": tcp, "syslog_udp_listen": udp}


def port_of(sock: socket.socket) -> int:
    """Return where it listens."""
    number: int = sock.getsockname()[1]
    return number


class Activated(Daemon):
    """A daemon that is handed its syslog sockets."""

    def __init__(self, folder: Path, database_url: str, sockets: dict[str, socket.socket], **settings: str) -> None:
        listen = {setting: f"127.0.0.1:{port_of(sock)}" for setting, sock in sockets.items()}
        super().__init__(folder, database_url, **listen, **settings)
        self._sockets = sockets

    async def start(self, *, ready: bool = True) -> None:
        """Start it as systemd does."""
        # Numbers that are none of those that they shall have.
        held = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100) for sock in self._sockets.values()]
        handed = {"LISTEN_FDS": str(len(held)), "LISTEN_FDNAMES": ":".join(self._sockets)}
        command = [sys.executable, "-c", AS_SYSTEMD, ",".join(map(str, held))]
        env = environment(**self.settings) | handed
        with self.log.open("ab") as log:
            self.process = await asyncio.to_thread(subprocess.Popen, command, env=env, stderr=log, pass_fds=held)
        for number in held:
            os.close(number)
        if ready:
            await self.ready()


@contextmanager
def rsyslog(program: str, folder: Path, to: socket.socket) -> Iterator[None]:
    """Run a private rsyslogd that sends what comes into `lines`."""
    folder.mkdir()
    (folder / "lines").touch()
    (folder / "rsyslog.conf").write_text(RSYSLOG.format(folder=folder, port=port_of(to)))
    command = [program, "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "rsyslog.pid")]
    with (folder / "rsyslog.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Steady:
    """Writes lines for rsyslog and sends datagrams, each at its rate, until told to stop."""

    def __init__(self, file: Path, to: socket.socket) -> None:
        self._file = file
        self._to = to
        self.lines = self.datagrams = 0
        self.stopping = False

    async def run(self) -> None:
        """Send; what is late is sent later."""
        began = time.monotonic()
        with self._file.open("ab", buffering=0) as file, socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.connect(self._to.getsockname())
            while not self.stopping:
                await asyncio.sleep(0.02)
                gone = time.monotonic() - began
                lines, datagrams = int(LINES * gone), int(DATAGRAMS * gone)
                file.write(b"".join(b"line %d\n" % number for number in range(self.lines, lines)))
                for number in range(self.datagrams, datagrams):
                    sock.send(b"<13>1 2026-11-20T10:00:00Z host datagrams - - - datagram %d" % number)
                self.lines, self.datagrams = lines, datagrams


async def counted(daemon: Daemon) -> dict[str, int]:
    """Return how many records there are of each service."""
    async with daemon.http.get("/logs/aggregations", params={"by": "service"}) as answer:
        return {row["service"]: row["count"] for row in await answer.json()}


async def arrived(daemon: Daemon, sent: Steady) -> None:
    """Return when all is there, or nothing more has come for some seconds: then the rest is lost."""
    wanted = {"lines": sent.lines, "datagrams": sent.datagrams}
    changed, before = time.monotonic(), await counted(daemon)
    while before != wanted and time.monotonic() - changed < QUIET:
        await asyncio.sleep(0.1)
        if (now := await counted(daemon)) != before:
            changed, before = time.monotonic(), now


def compared(records: list[dict[str, Any]], sent: Steady) -> Outcome:
    """Compare what is there with what was sent."""
    there: dict[str, Counter[int]] = {"lines": Counter(), "datagrams": Counter()}
    others = 0
    for record in records:
        found = re.fullmatch(r"(?:line|datagram) (\d+)", record["message"].strip())
        if found and record["service"] in there:
            there[record["service"]][int(found[1])] += 1
        else:
            others += 1
    figures: dict[str, int | float | str] = {}
    broken = []
    for service, count in (("lines", sent.lines), ("datagrams", sent.datagrams)):
        lost = set(range(count)) - there[service].keys()
        figures |= {f"{service} sent": count, f"{service} lost": len(lost)}
        figures[f"{service} twice"] = sum(times > 1 for times in there[service].values())
        if lost:
            broken.append(f"{len(lost):,} of {count:,} {service} are lost, of {min(lost)} to {max(lost)}")
        if figures[f"{service} twice"]:
            broken.append(f"{figures[f'{service} twice']} of {count:,} {service} are there twice")
    if others:
        broken.append(f"{others:,} records are none that were sent")
    return Outcome(figures, broken)


async def restarted(folder: Path, short: bool) -> Outcome:
    """Restart the daemon again and again under rsyslog and datagrams, and count what there is."""
    program = shutil.which("rsyslogd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if not program:
        return Outcome({"rsyslog": "not done: rsyslogd is not installed (Debian: apt install rsyslog)"}, [])
    restarts, longest, broken = 2 if short else 20, 0.0, []
    async with Postgres(folder) as postgres:
        with held_open() as sockets:
            async with Activated(folder, postgres.url, sockets) as daemon:
                sent = Steady(folder / "rsyslog" / "lines", sockets["syslog_udp_listen"])
                with rsyslog(program, folder / "rsyslog", sockets["syslog_tcp_listen"]):
                    sending = asyncio.create_task(sent.run())
                    for _ in range(restarts):
                        await asyncio.sleep(0.4 if short else 2)
                        began = time.monotonic()
                        if status := await daemon.kill(signal.SIGTERM):
                            broken.append(f"the daemon ended with {status}: {daemon.said()}")
                        await daemon.start()
                        longest = max(longest, time.monotonic() - began)
                    await asyncio.sleep(0.4)
                    sent.stopping = True
                    await sending
                    await arrived(daemon, sent)
                await daemon.drained()
                outcome, leaks = compared(await daemon.exported(), sent), await daemon.leaks()
            room = sockets["syslog_udp_listen"].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    figures = {"restarts": restarts, "longest restart, s": round(longest, 1), **outcome.figures}
    figures |= {"receive buffer of UDP, bytes": room, "books": "do not balance" if leaks else "balance"}
    return Outcome(figures, broken + outcome.broken + leaks)


SCENARIOS = [
    Scenario(
        "restart-rsyslog",
        "20 restarts of the daemon, with socket activation, under 2,000 lines/s of rsyslog's omfwd with its default"
        " settings and 500 datagrams/s",
        "none lost, none twice",
        restarted,
    )
]
