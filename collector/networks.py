"""Who may reach a listener by address: lists of networks, one for each listener."""

import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

#: Stands for the listeners that are not named.
OTHERS = "*"


class Networks:
    """The networks from which a listener takes what is sent; without any it takes all."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._networks = networks
        self._cached = lru_cache(maxsize=10_000)(self._contain)

    def __bool__(self) -> bool:
        """Whether somebody is kept out."""
        return bool(self._networks)

    def allows(self, peer: str) -> bool:
        """Tell whether a sender of this address may send."""
        return not self._networks or self._cached(peer)

    def _contain(self, peer: str) -> bool:
        address = plain_address(peer)
        return address is not None and any(address in network for network in self._networks)


EVERYBODY = Networks()


def plain_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, of IPv4 too where it comes as IPv6 (`::ffff:10.0.0.1`); None for what is none."""
    with suppress(ValueError):
        address = ip_address(text)
        return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    return None


def parse_allow(text: str, listeners: Collection[str]) -> Mapping[str, Networks]:
    """Read `http_listen=10.0.0.0/8 fd00::/8, *=192.168.0.0/16`: of each listener, what it says, else what `*` says.

    Raises ValueError.
    """
    found: dict[str, list[IPv4Network | IPv6Network]] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, networks = (each.strip() for each in part.partition("="))
        if not equals or not networks:
            raise ValueError(f"{part!r}: expected LISTENER=NETWORK, such as http_listen=10.0.0.0/8")
        if name != OTHERS and name not in listeners:
            raise ValueError(f"{name}: not of {', '.join(sorted(listeners))} and {OTHERS}")
        try:
            found.setdefault(name, []).extend(map(ip_network, networks.split()))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    others = found.pop(OTHERS, [])
    return {name: Networks(found.get(name, others)) for name in listeners}


def is_loopback(host: str) -> bool:
    """Tell whether what listens on a host is reached from this machine alone; a name may have several addresses."""
    if address := plain_address(host):
        return address.is_loopback
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return all(is_loopback(str(each[4][0])) for each in found)
