"""Listening sockets: those that systemd hands over, so that a port stays open across a restart, else our own.

https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from logagg.collector.tls import Factory
from logagg.collector.units import Address

#: The first descriptor handed over; the others follow it.
_FIRST: Final = 3
#: Connections that may wait to be accepted.
_BACKLOG: Final = 1024
_INTERNET = (socket.AF_INET, socket.AF_INET6)
_KINDS = {socket.SOCK_STREAM: "a TCP", socket.SOCK_DGRAM: "a UDP"}


class Place(NamedTuple):
    """Where a listener listens."""

    #: The setting that says so, such as `tcp_listen`.
    setting: str
    address: Address
    #: The socket that was handed over for it; None: the listener makes its own.
    handed: socket.socket | None = None
    #: Makes a factory of connections one of connections over TLS; None: plain.
    tls: Callable[[Factory], Factory] | None = None


class Inherited:
    """The sockets that were handed over. One belongs to the setting of its name, else to that of its kind and port."""

    def __init__(self, sockets: list[tuple[str, socket.socket]]) -> None:
        self._sockets = sockets

    @classmethod
    def of(cls, environment: MutableMapping[str, str] = os.environ, pid: int | None = None) -> "Inherited":
        """Take what LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES say, out of the environment too: it is for us alone.

        Raises OSError when a descriptor is no socket.
        """
        said = [environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")]
        if said[0] != str(os.getpid() if pid is None else pid) or not said[1].isdigit():
            return cls([])
        names = said[2].split(":")
        sockets = []
        for number in range(int(said[1])):
            descriptor = _FIRST + number
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            sockets.append((names[number] if number < len(names) else "", sock))
        return cls(sockets)

    def place(self, setting: str, address: Address, kind: socket.SocketKind) -> Place:
        """Return where to listen, with the socket that was handed over for this setting, if one was."""
        fit = [each for each in self._sockets if each[1].type == kind and each[1].family in _INTERNET]
        of_name = [each for each in fit if each[0] == setting]
        of_port = [each for each in fit if each[1].getsockname()[1] == address.port]
        for each in (*of_name, *of_port):
            self._sockets.remove(each)
            return Place(setting, address, each[1])
        return Place(setting, address)

    def check(self) -> None:
        """Raise OSError when one is left that no listener has taken: what is sent there would never be read."""
        for name, sock in self._sockets:
            kind = _KINDS.get(sock.type, "another")
            raise OSError(
                f"systemd hands over {kind} socket {name!r} on {sock.getsockname()}, and no *_listen setting has its"
                " name, or its kind and port"
            )


async def serve(factory: Factory, place: Place) -> asyncio.Server:
    """Listen for connections. Raises OSError that names the setting."""
    loop = asyncio.get_running_loop()
    if place.tls:
        factory = place.tls(factory)
    with naming(place):
        if place.handed:
            return await loop.create_server(factory, sock=place.handed, backlog=_BACKLOG)
        return await loop.create_server(factory, *place.address, backlog=_BACKLOG)


@contextmanager
def naming(place: Place) -> Iterator[None]:
    """Tell which listener cannot listen."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise OSError(f"{place.setting}: cannot listen on {place.address}: {reason}") from error


def bound(server: asyncio.Server, place: Place) -> Address:
    """Return where a server listens: the kernel chose a port for port 0."""
    name = server.sockets[0].getsockname()
    return Address(str(name[0]) if place.handed else place.address.host, int(name[1]))
