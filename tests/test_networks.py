"""Who may reach a listener: allow-lists of networks, and no start in the open."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from logagg.cli.main import cli
from logagg.collector.config import load_settings
from logagg.collector.listening import exposed
from logagg.collector.networks import Networks, is_loopback, parse_allow, plain_address
from logagg.collector.settings import Settings, SettingsError

if TYPE_CHECKING:
    import asyncpg

    from logagg.tests.daemons import Lines, RunningDaemon, Starter
    from logagg.tests.processes import process
else:
    from processes import process

LISTENERS = [name for name in Settings.model_fields if name.endswith("_listen")]


def networks(text: str) -> Networks:
    return parse_allow(f"tcp_listen={text}", LISTENERS)["tcp_listen"]


def test_addresses_in_networks() -> None:
    some = networks("10.0.0.0/8 192.168.1.7 fd00::/8")
    assert all(map(some.allows, ("10.1.2.3", "::ffff:10.1.2.3", "192.168.1.7", "fd12::1", "fd12::1%eth0")))
    assert not any(map(some.allows, ("11.0.0.1", "::ffff:11.0.0.1", "192.168.1.8", "fe80::1", "", "name")))
    assert not networks("::/0").allows("10.0.0.1")
    assert Networks().allows("10.0.0.1")
    assert str(plain_address("::ffff:1.2.3.4")) == "1.2.3.4"


def test_each_listener_has_its_own_and_the_others_what_is_for_others() -> None:
    allowed = parse_allow("tcp_listen=10.0.0.0/8, *=192.168.0.0/16, tcp_listen=10.0.0.0/8 fd00::/8", LISTENERS)
    assert allowed["tcp_listen"].allows("fd00::1")
    assert not allowed["tcp_listen"].allows("192.168.0.1")
    assert allowed["http_listen"].allows("192.168.0.1")
    assert not any(parse_allow("", LISTENERS).values())


@pytest.mark.parametrize(
    ("allow", "reason"),
    [
        ("10.0.0.0/8", "'10.0.0.0/8': expected LISTENER=NETWORK, such as http_listen=10.0.0.0/8"),
        ("tcp_listen=", "'tcp_listen=': expected LISTENER=NETWORK"),
        ("tcp=10.0.0.0/8", "allow: tcp: not of forward_listen, "),
        ("tcp_listen=10.0.0.1/8", "tcp_listen: 10.0.0.1/8 has host bits set"),
        ("tcp_listen=example.com", "'example.com' does not appear to be an IPv4 or IPv6 network"),
    ],
)
def test_what_is_no_list(allow: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGAGG_ALLOW", allow)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert reason in str(caught.value)


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "no.such.host.invalid", "x" * 300)))  # noqa: S104


# --- Real senders ----------------------------------------------------------------------------------------------------


async def said(daemon: RunningDaemon, setting: str, source: str, data: bytes) -> bytes | None:
    """Send bytes from an address of this machine; return what the daemon says, None when it closes without a word."""
    reader, writer = await asyncio.open_connection(*daemon.listening[setting], local_addr=(source, 0))
    try:
        writer.write(data)
        if setting != "http_listen":
            writer.write_eof()
        return await reader.read() or None
    except OSError:  # it was closed at once
        return None
    finally:
        writer.close()


def logged(lines: Lines, event: str) -> Lines:
    """Return the lines about something."""
    return [line for line in lines if line["event"] == event]


async def until(daemon: RunningDaemon, value: float, name: str, **labels: str) -> None:
    async with asyncio.timeout(20):
        while await daemon.metric(name, **labels) != value:
            await asyncio.sleep(0.01)


async def test_senders_of_other_networks_are_refused(
    start_daemon: Starter, lines: Lines, sql: asyncpg.Connection
) -> None:
    daemon = await start_daemon(allow="*=127.0.0.1", http_body_timeout="5s")
    for source in ("127.0.0.1", "127.0.0.2"):
        for setting, transport in (
            ("tcp_listen", "tcp"),
            ("syslog_tcp_listen", "syslog-tcp"),
            ("gelf_tcp_listen", "gelf-tcp"),
        ):
            line = b'{"message":"m","short_message":"s"}\0' if transport == "gelf-tcp" else b'{"message":"m"}\n'
            await said(daemon, setting, source, line)
            refused = 1.0 if source == "127.0.0.2" else 0.0
            await until(daemon, refused, "logagg_connections_refused_total", transport=transport, reason="allow")
            await until(daemon, 1, "logagg_records_received_total", transport=transport)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            for _ in range(3):
                sock.sendto(b"<13>m", daemon.listening["syslog_udp_listen"])
    await until(daemon, 6, "logagg_records_received_total", transport="syslog-udp")
    assert await daemon.metric("logagg_records_dropped_total", transport="syslog-udp", reason="allow") == 3
    body = b'POST /ingest HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{"message":"m"}'
    assert (await said(daemon, "http_listen", "127.0.0.1", body) or b"").startswith(b"HTTP/1.1 200")
    for request in (body, b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"):
        answer = await said(daemon, "http_listen", "127.0.0.2", request) or b""
        assert answer.startswith(b"HTTP/1.1 403")
        assert b'{"detail":"127.0.0.2 is not in the networks that may reach http_listen"}' in answer
    splunk = body.replace(b"/ingest", b"/services/collector")
    assert b'"code":4' in (await said(daemon, "http_listen", "127.0.0.2", splunk) or b"")
    assert await daemon.metric("logagg_requests_refused_total", status="403") == 3
    assert await daemon.metric("logagg_connections_refused_total", transport="relp", reason="allow") == 0
    assert await said(daemon, "relp_listen", "127.0.0.2", b"1 open 0\n") is None
    assert len(await daemon.logs()) == 7
    assert await sql.fetchval("select count(*) from logs") == 7
    told = logged(lines, "a sender is not in the networks of `allow`")
    listeners = {
        *("tcp_listen", "syslog_tcp_listen", "gelf_tcp_listen"),
        *("syslog_udp_listen", "http_listen", "relp_listen"),
    }
    assert {(line["listener"], line["peer"], line["reason"]) for line in told} == {
        (listener, "127.0.0.2", f"127.0.0.2 is not in the networks that may reach {listener}") for listener in listeners
    }
    assert len(told) == len(listeners)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_ipv4_that_comes_as_ipv6(start_daemon: Starter) -> None:
    daemon = await start_daemon(syslog_udp_listen="[::]:0", allow="syslog_udp_listen=127.0.0.1")
    for source in ("127.0.0.1", "127.0.0.2"):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind((source, 0))
            sock.sendto(b"<13>m", ("127.0.0.1", daemon.listening["syslog_udp_listen"].port))
    await until(daemon, 2, "logagg_records_received_total", transport="syslog-udp")
    assert await daemon.metric("logagg_records_dropped_total", transport="syslog-udp", reason="allow") == 1
    assert len(await daemon.logs()) == 1


async def test_connections_of_one_address(start_daemon: Starter, lines: Lines) -> None:
    daemon = await start_daemon(max_connections_per_address=2)
    for setting, transport in (("tcp_listen", "tcp"), ("http_listen", "http")):
        before = await daemon.metric("logagg_connections", transport=transport)  # ours, to ask
        writers = []
        for source in ["127.0.0.3"] * 3 + ["127.0.0.4"]:
            reader, writer = await asyncio.open_connection(*daemon.listening[setting], local_addr=(source, 0))
            writers.append(writer)
            if len(writers) == 3:
                assert await reader.read() == b""
        await until(daemon, before + 3, "logagg_connections", transport=transport)
        assert await daemon.metric(
            "logagg_connections_refused_total", transport=transport, reason="max_connections_per_address"
        ) == 1  # fmt: skip
        for writer in writers:
            writer.close()
        await until(daemon, before, "logagg_connections", transport=transport)
        _, writer = await asyncio.open_connection(*daemon.listening[setting], local_addr=("127.0.0.3", 0))
        await until(daemon, before + 1, "logagg_connections", transport=transport)
        writer.close()
    told = logged(lines, "a sender has too many connections")
    reason = "127.0.0.3 has 2 connections open, and max_connections_per_address is 2"
    assert [(line["listener"], line["peer"], line["times"], line["reason"]) for line in told] == [
        ("tcp_listen", "127.0.0.3", 1, reason),
        ("http_listen", "127.0.0.3", 1, reason),
    ]


# --- In the open -----------------------------------------------------------------------------------------------------

WIDE = "0.0.0.0:0"
CERTIFICATE = {"tls_certificate": "server.pem"}
#: What protects a listener, and whom it protects. Each is a row of the table in docs/access.md.
PROTECTION: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"allow": "*=10.0.0.0/8"}, set(LISTENERS)),
    ({"allow": "tcp_listen=10.0.0.0/8"}, {"tcp_listen"}),
    ({"auth_required": True}, {"http_listen"}),
    ({"forward_shared_key": "k"}, {"forward_listen"}),
    ({"tls_listeners": "http_listen, relp_listen"}, set()),
    (
        {"tls_listeners": "http_listen, relp_listen", "tls_client_ca": "senders.pem"},
        {"http_listen", "relp_listen", "syslog_tls_listen"},
    ),
    (
        {
            "tls_listeners": "http_listen, relp_listen",
            "tls_client_ca": "senders.pem",
            "tls_client_ca_listeners": "relp_listen",
        },
        {"relp_listen"},
    ),
]


@pytest.mark.parametrize(("given", "protected"), PROTECTION)
def test_what_protects_a_listener(given: dict[str, Any], protected: set[str]) -> None:
    wide: dict[str, Any] = {**dict.fromkeys(LISTENERS, WIDE), **CERTIFICATE}
    settings = Settings(**wide, **given)
    problem = exposed(settings) or ""
    assert {name for name in LISTENERS if f" {name} (" in problem} == set(LISTENERS) - protected
    here: dict[str, Any] = {**dict.fromkeys(LISTENERS, "[::1]:0"), **CERTIFICATE}
    assert exposed(Settings(**here)) is None


def test_a_daemon_does_not_start_in_the_open_unless_told(database_url: str) -> None:
    with process(database_url=database_url, tcp_listen=WIDE, syslog_udp_listen="[::]:0") as refused:
        assert refused.wait(60) == 1
        assert refused.stderr
        log = refused.stderr.read()
    assert "syslog_udp_listen ([::]:0)" in log
    assert "tcp_listen (0.0.0.0:0)" in log
    assert "http_listen" not in log
    places = [log.index(way) for way in ("tls_client_ca", "allow =", "listen on 127.0.0.1", "--insecure")]
    assert places == sorted(places)


def test_tokens_are_the_first_way_to_protect_http() -> None:
    wide: dict[str, Any] = {"http_listen": "0.0.0.0:8000"}
    problem = exposed(Settings(**wide)) or ""
    assert "there: http_listen (0.0.0.0:8000). Protect each: http_listen by tokens (auth_required = true), " in problem


CA: dict[str, Any] = {**CERTIFICATE, "tls_client_ca": "ca.pem", "tls_listeners": "relp_listen, http_listen"}
BY_CERTIFICATE = "what is over TCP by certificates of the senders"


@pytest.mark.parametrize(
    ("listeners", "given", "ways"),
    [
        (["syslog_udp_listen", "gelf_udp_listen"], {}, ""),
        (["forward_listen"], CERTIFICATE,
         f": forward_listen by a key (forward_shared_key), {BY_CERTIFICATE} (tls_listeners, tls_client_ca), any"),
        (["tcp_listen", "syslog_udp_listen"], {},
         f": {BY_CERTIFICATE} (tls_certificate, tls_listeners, tls_client_ca), any"),
        (["tcp_listen", "relp_listen"], CA, f": {BY_CERTIFICATE} (tls_listeners), any"),
        (["relp_listen"], {**CA, "tls_client_ca_listeners": "http_listen"},
         f": {BY_CERTIFICATE} (tls_client_ca_listeners), any"),
    ],
)  # fmt: skip
def test_only_ways_that_a_listener_has_are_offered(listeners: list[str], given: dict[str, Any], ways: str) -> None:
    wide: dict[str, Any] = {**dict.fromkeys(listeners, WIDE), **given}
    problem = exposed(Settings(**wide)) or ""
    assert f"). Protect each{ways} by its networks (allow = " in problem


async def test_told_that_it_may_it_warns(start_daemon: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    daemon = await start_daemon(tcp_listen=WIDE, insecure=True)
    await daemon.tcp("tcp_listen", b'{"message":"m"}\n')
    assert "open to other machines, and to everybody there: tcp_listen (0.0.0.0:0)" in capfd.readouterr().out


def test_check_config_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked() -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["check-config"], prog_name="logagg")
        return done.exit_code, done.stderr

    monkeypatch.setenv("LOGAGG_TCP_LISTEN", WIDE)
    assert checked()[0] == 2
    assert "tcp_listen (0.0.0.0:0)" in checked()[1]
    monkeypatch.setenv("LOGAGG_INSECURE", "true")
    assert checked()[0] == 0
    assert "warning: open to other machines" in checked()[1]
    monkeypatch.delenv("LOGAGG_INSECURE")
    monkeypatch.setenv("LOGAGG_ALLOW", "tcp_listen=10.0.0.0/8")
    status, told = checked()
    assert status == 0
    assert "open to other machines" not in told
