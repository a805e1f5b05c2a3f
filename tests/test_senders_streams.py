"""Real clients from PyPI over TCP and UDP, by the blocks of docs/senders.md as they stand: all they send is found."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon
    from logagg.tests.programs import ODD, arrived, begin, block, more
else:
    from programs import ODD, arrived, begin, block, more

HERE = socket.gethostname()
GELF = {"card": 17}
SYSLOG = {"sd": {"sale@32473": {"card": "17"}}}


class Handler(NamedTuple):
    """A block that logs an error by the logger `shop`."""

    name: str
    package: str
    heading: str
    number: int
    setting: str
    #: Attributes of the first record.
    attributes: dict[str, Any]
    facility: int | None = None
    port: int = 0


HANDLERS = [
    Handler("gelf-tcp", "pygelf", "pygelf", 1, "gelf_tcp_listen", GELF),
    Handler("gelf-udp", "pygelf", "pygelf", 2, "gelf_udp_listen", GELF),
    Handler("forward", "fluent", "fluent-logger", 0, "forward_listen", {"logger": "shop", "tag": "shop"}),
    Handler("syslog-tcp", "rfc5424logging", "rfc5424-logging-handler", 0, "syslog_tcp_listen", SYSLOG, 1),
    Handler("syslog-udp", "rfc5424logging", "rfc5424-logging-handler", 1, "syslog_udp_listen", SYSLOG, 1),
]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.name)
async def test_a_handler_of_logging(daemon: RunningDaemon, handler: Handler) -> None:
    pytest.importorskip(handler.package)
    before = datetime.now(UTC)
    await begin(daemon, block(handler.heading, handler.number) + more(200), handler.setting)
    expected = [("ERROR", "card 17 was refused"), *[("WARNING", f"line {number}") for number in range(200)]]
    expected += [("CRITICAL", text) for text in ODD]
    if handler.name == "forward":  # the block logs another
        expected.append(("ERROR", "card 18 was refused"))
    found = await arrived(daemon, len(expected))
    assert sorted((record["level"], record["message"]) for record in found) == sorted(expected)
    for record in found:
        assert (record["service"], record["host"], record["facility"]) == ("shop", HERE, handler.facility)
        assert before <= datetime.fromisoformat(record["timestamp"]) <= datetime.fromisoformat(record["received_at"])
    (first,) = (record for record in found if record["message"] == "card 17 was refused")
    assert first["attributes"] | handler.attributes == first["attributes"]


@pytest.mark.parametrize(
    ("heading", "number", "setting"),
    [
        ("pygelf", 1, "gelf_tcp_listen"),
        ("pygelf", 2, "gelf_udp_listen"),
        ("fluent-logger", 0, "forward_listen"),
        ("rfc5424-logging-handler", 0, "syslog_tcp_listen"),
        ("rfc5424-logging-handler", 1, "syslog_udp_listen"),
    ],
)
async def test_a_text_of_several_lines_is_one_record(
    daemon: RunningDaemon, heading: str, number: int, setting: str
) -> None:
    pytest.importorskip("pygelf")
    text = "Traceback:\n  in a\n\n\tin b"
    await begin(daemon, block(heading, number) + f"logging.getLogger('shop').critical({text!r})\n", setting)
    found = await arrived(daemon, 3 if heading == "fluent-logger" else 2)
    assert [record["message"] for record in found if record["level"] == "CRITICAL"] == [text]


async def test_gelf_in_chunks(daemon: RunningDaemon) -> None:
    pytest.importorskip("pygelf")
    texts = [f"{number} ".ljust(20_000, "x") for number in range(20)]
    chunked = f"""
handler.compress = False
for number in range({len(texts)}):
    logging.getLogger("shop").warning(f"{{number}} ".ljust(20_000, "x"))
"""
    await begin(daemon, block("pygelf", 2) + chunked, "gelf_udp_listen")
    found = await arrived(daemon, 1 + len(texts))
    assert sorted(record["message"] for record in found if record["level"] == "WARNING") == sorted(texts)


async def test_pylogbeat(daemon: RunningDaemon) -> None:
    pytest.importorskip("pylogbeat")
    again = """
with PyLogBeatClient("127.0.0.1", 5044, timeout=30) as client:
    for number in range(5):
        client.send([{"service": "shop", "message": f"line {number} {place}"} for place in range(100)])
"""
    await begin(daemon, block("pylogbeat") + again, "lumberjack_listen")
    first, second, *others = await daemon.logs(order="oldest", limit="1000")  # no waiting: they were acknowledged
    assert [(record["level"], record["service"], record["message"]) for record in (first, second)] == [
        ("ERROR", "shop", "card 17 was refused"),
        ("INFO", "shop", "card 18 was accepted"),
    ]
    assert [record["attributes"] for record in (first, second)] == [{"card": 17}, {"card": 18}]
    assert [record["message"] for record in others] == [f"line {n} {place}" for n in range(5) for place in range(100)]
