"""What systemd wants to hear from a service of Type=notify; see sd_notify(3). Silent where there is no systemd."""

import asyncio
import os
import socket


def notify(*lines: str) -> None:
    """Tell systemd, such as `READY=1`, `STATUS=...`, `STOPPING=1`."""
    where = os.environ.get("NOTIFY_SOCKET")
    if not where:
        return
    if where.startswith("@"):  # an abstract socket, see unix(7)
        where = "\0" + where[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto("\n".join(lines).encode(), where)


async def watchdog() -> None:
    """Ping systemd twice in each period of its watchdog: the event loop turns. Return at once without one."""
    period = int(os.environ.get("WATCHDOG_USEC", "0")) / 1_000_000
    while period:
        notify("WATCHDOG=1")
        await asyncio.sleep(period / 2)
