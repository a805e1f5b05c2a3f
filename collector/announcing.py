"""What a daemon says once it listens."""

import sys
from collections.abc import Mapping

import structlog

from logagg.collector.canary import reached
from logagg.collector.notify import notify
from logagg.collector.units import Address

log = structlog.get_logger("daemon")


def url_of(over_tls: frozenset[str], address: Address) -> str:
    """Return where HTTP is reached from here."""
    return f"{'https' if 'http_listen' in over_tls else 'http'}://{address._replace(host=reached(address))}"


def announce(over_tls: frozenset[str], listening: Mapping[str, Address]) -> None:
    """Say where we listen, and how the first record goes in and comes out."""
    log.info("ready", **{setting: str(address) for setting, address in listening.items()})
    if "http_listen" in listening:
        url = url_of(over_tls, listening["http_listen"])
        curl, search = ("curl --cacert CA.pem", " --ca-file CA.pem") if url.startswith("https") else ("curl", "")
        send = f"""{curl} {url}/ingest -d '{{"service": "shop", "level": "ERROR", "message": "hello, logagg"}}'"""
        find = f"{sys.argv[0]} search hello" + ("" if url == "http://127.0.0.1:8000" else f" --url {url}{search}")
        if sys.stderr.isatty():  # lines to copy
            sys.stderr.write(f"\n  Send the first record:  {send}\n  Find it:  {find}\n  The page:  {url}\n\n")
        else:
            log.info("try it", send=send, find=find, page=url)
    notify("READY=1", f"STATUS=listening: {', '.join(str(address) for address in listening.values())}")
