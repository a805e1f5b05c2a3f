"""Listeners over TLS: encrypted, with a certificate of the sender where one is asked for, read again on SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from logagg.collector import tls
from logagg.collector.settings import Settings
from logagg.collector.tls import Tls, TlsError

if TYPE_CHECKING:
    from pathlib import Path

    from logagg.tests.daemons import Lines, RunningDaemon, Starter
    from logagg.tests.processes import PATIENCE, events, free_port, process
    from logagg.tests.scripted import logagg
else:
    from processes import PATIENCE, events, free_port, process
    from scripted import logagg

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")

FRAME = b"<13>1 2026-11-22T11:00:00Z host app - - - over TLS"
RELP = b"1 open 30 relp_version=0\ncommands=syslog\n2 syslog %d %b\n" % (len(FRAME), FRAME)


def certificate(folder: Path, name: str, *signed: str) -> Path:
    """Make a certificate and its key, by itself or signed by that of another; return it."""
    path = folder / f"{name}.pem"
    request: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    request += ["-keyout", folder / f"{name}.key", "-out", path, "-days", "2", "-subj", f"/CN={name}"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1"]
    for other in signed:
        request += ["-CA", folder / f"{other}.pem", "-CAkey", folder / f"{other}.key"]
        request += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(request, check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates")
    certificate(path, "ca")
    for name in ("server", "other", "client"):
        certificate(path, name, "ca")
    certificate(path, "stranger")
    return path


def over(folder: Path, **more: str) -> dict[str, str]:
    return {
        "tls_certificate": str(folder / "server.pem"), "tls_key": str(folder / "server.key"),
        "syslog_tls_listen": "127.0.0.1:0", **more,
    }  # fmt: skip


def trusting(folder: Path, own: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if own:
        context.load_cert_chain(folder / f"{own}.pem", folder / f"{own}.key")
    return context


def shake(address: tuple[str, int], context: ssl.SSLContext) -> None:
    """Shake hands; an event loop would not say what it does not like."""
    with socket.create_connection(address) as plain, context.wrap_socket(plain, server_hostname=address[0]):
        pass


async def send(daemon: RunningDaemon, setting: str, data: bytes, context: ssl.SSLContext | None) -> bytes:
    """Send, over TLS with a context; return what is answered until the other side closes, or for a moment."""
    reader, writer = await asyncio.open_connection(*daemon.listening[setting], ssl=context)
    writer.write(data)
    await writer.drain()
    try:
        async with asyncio.timeout(0.5):
            return await reader.read(1000)
    except TimeoutError:
        return b""
    finally:
        writer.close()


async def test_no_more_handshakes_are_under_way_than_there_may_be(
    start_daemon: Starter, folder: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    monkeypatch.setattr(tls, "MOST", 2)
    daemon = await start_daemon(**over(folder))
    silent = [await asyncio.open_connection(*daemon.listening["syslog_tls_listen"]) for _ in range(3)]
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            assert await silent[2][0].read() == b""
        while await daemon.metric("logagg_tls_handshake_failures_total") < 1:
            await asyncio.sleep(0.01)
    told = [line["reason"] for line in lines if "handshake" in line["event"]]
    assert told == ["2 handshakes are under way, and 2 is the most"]
    for _, writer in silent:
        writer.close()
    async with asyncio.timeout(30):  # those that have gone leave room
        while await daemon.metric("logagg_records_stored_total", transport="syslog-tls") < 1:
            with contextlib.suppress(OSError):
                await send(daemon, "syslog_tls_listen", b"%d %b" % (len(FRAME), FRAME), trusting(folder))


async def test_syslog_and_relp_over_tls(start_daemon: Starter, folder: Path) -> None:
    daemon = await start_daemon(**over(folder, tls_listeners="relp_listen"))
    context = trusting(folder)
    await send(daemon, "syslog_tls_listen", b"%d %b" % (len(FRAME), FRAME), context)
    assert b"2 rsp 6 200 OK" in await send(daemon, "relp_listen", RELP, context)
    while await daemon.metric("logagg_records_stored_total", transport="syslog-tls") < 1:
        await asyncio.sleep(0.01)
    assert [record["message"] for record in await daemon.logs()] == ["over TLS"] * 2
    # What is not TLS is refused, and hurts nobody; what listens without TLS does still.
    _, writer = await asyncio.open_connection(*daemon.listening["syslog_tls_listen"])
    writer.write(FRAME + b"\n" + bytes(range(256)))
    writer.close()
    await daemon.tcp("tcp_listen", b'{"message": "plain"}\n')
    assert {record["message"] for record in await daemon.logs()} == {"over TLS", "plain"}


async def test_a_sender_without_the_right_certificate_is_refused(
    start_daemon: Starter, folder: Path, lines: Lines
) -> None:
    daemon = await start_daemon(**over(folder, tls_client_ca=str(folder / "ca.pem")))
    for own in (None, "stranger", "client"):
        frame = b"<13>1 2026-11-22T11:00:00Z host app - - - by %b\n" % str(own).encode()
        try:
            await send(daemon, "syslog_tls_listen", frame, trusting(folder, own))
        except OSError:  # said in the handshake, or behind it: TLS 1.3
            assert own != "client"
    while await daemon.metric("logagg_records_stored_total", transport="syslog-tls") < 1:
        await asyncio.sleep(0.01)
    assert [record["message"] for record in await daemon.logs()] == ["by client"]
    with contextlib.suppress(OSError):
        await asyncio.to_thread(shake, daemon.listening["syslog_tls_listen"], ssl.create_default_context())
    with contextlib.suppress(OSError):
        await send(daemon, "syslog_tls_listen", b"GET / HTTP/1.1\r\n\r\n", None)
    async with asyncio.timeout(30):
        while await daemon.metric("logagg_tls_handshake_failures_total") < 4:
            await asyncio.sleep(0.01)
    told = [line for line in lines if "handshake" in line["event"]]
    assert {(line["listener"], line["peer"]) for line in told} == {("syslog_tls_listen", "127.0.0.1")}
    assert [line["reason"] for line in told] == [
        "the sender shows no certificate, and tls_client_ca asks for one (PEER_DID_NOT_RETURN_A_CERTIFICATE)",
        "the certificate of the sender is not taken: self-signed certificate (CERTIFICATE_VERIFY_FAILED)",
        "the sender does not take tls_certificate: it does not know the authority that signed it"
        " (TLSV1_ALERT_UNKNOWN_CA)",
        "the sender sends HTTP, without TLS (HTTP_REQUEST)",
    ]


async def test_without_a_file_for_a_handshake_the_connection_is_closed_and_the_next_one_is_served(
    start_daemon: Starter, folder: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await start_daemon(**over(folder, tls_listeners="relp_listen"))

    def full(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(socket, "fromfd", full)
        with pytest.raises(OSError):  # noqa: PT011  # closed in the handshake, in one way or another
            await send(daemon, "relp_listen", RELP, trusting(folder))
    (told,) = [line for line in lines if "handshake" in line["event"]]
    assert (told["peer"], told["reason"]) == ("127.0.0.1", "[Errno 24] Too many open files")
    assert b"2 rsp 6 200 OK" in await send(daemon, "relp_listen", RELP, trusting(folder))


async def test_certificates_of_senders_are_asked_for_where_it_is_said(start_daemon: Starter, folder: Path) -> None:
    ca, listeners = str(folder / "ca.pem"), "relp_listen, tcp_listen"
    daemon = await start_daemon(
        **over(folder, tls_listeners=listeners, tls_client_ca=ca, tls_client_ca_listeners="relp_listen")
    )
    line = b'{"message": "without"}\n'
    await send(daemon, "tcp_listen", line, trusting(folder))
    await send(daemon, "syslog_tls_listen", b"%d %b" % (len(FRAME), FRAME), trusting(folder))
    for own in (None, "client"):
        answer = b""
        with contextlib.suppress(OSError):  # said in the handshake, or behind it: TLS 1.3
            answer = await send(daemon, "relp_listen", RELP, trusting(folder, own))
        assert (b"2 rsp 6 200 OK" in answer) == bool(own), own
    async with asyncio.timeout(30):
        while len(records := await daemon.logs()) < 3:
            await asyncio.sleep(0.01)
    assert sorted(record["message"] for record in records) == ["over TLS", "over TLS", "without"]
    assert await daemon.metric("logagg_tls_handshake_failures_total") == 1


def test_http_over_tls_and_a_certificate_that_changes(folder: Path, tmp_path: Path, database_url: str) -> None:
    port, asking = free_port(), free_port()
    files = {name: tmp_path / name for name in ("now.pem", "now.key")}

    def take(name: str) -> None:
        for path in files.values():
            shutil.copy(folder / f"{name}{path.suffix}", path)

    def shown() -> str:
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            trusting(folder).wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            found = secure.getpeercert()
        return str(found and found["subject"])

    def taken(own: str | None) -> bool:
        """Tell whether the listener that asks for certificates takes this one."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", asking)) as plain,
            trusting(folder, own).wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(RELP)
            return bool(secure.recv(1))
        return False

    take("server")
    settings = {"tls_certificate": str(files["now.pem"]), "tls_key": str(files["now.key"]), "syslog_tls_listen": ""}
    settings |= {"http_listen": f"127.0.0.1:{port}", "database_url": database_url}
    settings |= {"relp_listen": f"127.0.0.1:{asking}", "tls_listeners": "http_listen, relp_listen"}
    settings |= {"tls_client_ca": str(folder / "ca.pem"), "tls_client_ca_listeners": "relp_listen"}
    with process(**settings) as daemon:
        assert daemon.stderr
        log = until(daemon, "try it")
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", context=trusting(folder)) as answer:
            assert answer.status == 200
        assert "server" in shown()
        files["now.pem"].write_text("no certificate")
        daemon.send_signal(signal.SIGHUP)
        log += until(daemon, "the old one stays")
        assert "server" in shown()
        take("other")
        daemon.send_signal(signal.SIGHUP)
        log += until(daemon, "the certificate is read again")
        assert "other" in shown()
        assert [taken(own) for own in ("client", None, "stranger")] == [True, False, False]
        daemon.terminate()
        daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 0
    tried = next(each for each in events(log) if each["event"] == "try it")
    assert tried["send"].startswith(f"curl --cacert CA.pem https://127.0.0.1:{port}/ingest ")
    assert tried["find"].endswith(f" search hello --url https://127.0.0.1:{port} --ca-file CA.pem")


def until(daemon: subprocess.Popen[str], said: str) -> str:
    log = ""
    assert daemon.stderr
    while said not in log:
        line = daemon.stderr.readline()
        assert line, log
        log += line
    return log


def test_check_config_reads_the_files(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "logagg.toml"
    pem, other = folder / "server.pem", folder / "client.key"
    for certificate, key, problem in (
        ("server.pem", "server.key", ""),
        ("server.pem", "client.key", f"tls_certificate: {pem}, {other}: the key is not that of the certificate"),
        ("server.pem", "none.key", f"tls_key: {folder}/none.key: No such file or directory"),
        ("none.pem", "server.key", f"tls_certificate: {folder}/none.pem: No such file or directory"),
        ("ca.pem", "ca.pem", f"tls_certificate: {folder}/ca.pem, {folder}/ca.pem: "),
    ):
        config.write_text(f'tls_certificate = "{folder}/{certificate}"\ntls_key = "{folder}/{key}"\n')
        result = logagg("check-config", "--config", str(config))
        assert result.exit_code == (2 if problem else 0), result.output
        assert result.stderr.startswith(f"logagg: {problem}" if problem else "")


def test_check_config_says_which_listeners_can_ask_for_certificates(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "logagg.toml"
    files = f'tls_certificate = "{folder}/server.pem"\ntls_key = "{folder}/server.key"\ntls_listeners = "relp_listen"\n'
    asking = f'tls_client_ca = "{folder}/ca.pem"\n'
    for lines, problem in (
        (asking + 'tls_client_ca_listeners = "relp_listen, syslog_tls_listen"', ""),
        (asking + 'tls_client_ca_listeners = "http_listen relp"',
         "http_listen, relp: not of those over TLS: relp_listen, syslog_tls_listen"),
        ('tls_client_ca_listeners = "relp_listen"', "there is no tls_client_ca"),
    ):  # fmt: skip
        config.write_text(files + lines)
        result = logagg("check-config", "--config", str(config))
        assert result.exit_code == (2 if problem else 0), result.output
        place = config.read_text().count("\n") + 1
        said = f"logagg: {config}:{place}: tls_client_ca_listeners: {problem}\n"
        assert result.stderr.endswith(said if problem else "")


def test_settings_and_files_that_do_not_fit(folder: Path) -> None:
    wrong: dict[str, Any] = {"syslog_tls_listen": "127.0.0.1:6514"}
    with pytest.raises(ValueError, match="syslog_tls_listen over TLS, and there is no tls_certificate"):
        Settings(**wrong)
    wrong = {"tls_certificate": "x", "tls_listeners": "syslog_udp_listen"}
    with pytest.raises(ValueError, match="tls_listeners: syslog_udp_listen: not of "):
        Settings(**wrong)
    with pytest.raises(TlsError, match=r"tls_certificate: .*server.pem.*client.key: the key is not that of"):
        Tls(folder / "server.pem", folder / "client.key", None)
    with pytest.raises(TlsError, match=r"tls_client_ca: .*nothing.*No such file"):
        Tls(folder / "server.pem", folder / "server.key", folder / "nothing")


async def test_a_network_that_may_not_send_may_not_over_tls(start_daemon: Starter, folder: Path) -> None:
    allow = "syslog_tls_listen=10.0.0.0/8, relp_listen=127.0.0.0/8"
    daemon = await start_daemon(**over(folder, tls_listeners="relp_listen", allow=allow))
    context = trusting(folder)
    with contextlib.suppress(OSError):  # it is closed at once, perhaps before all was sent
        assert await send(daemon, "syslog_tls_listen", b"%d %b" % (len(FRAME), FRAME), context) == b""
    assert b"2 rsp 6 200 OK" in await send(daemon, "relp_listen", RELP, context)
    assert await daemon.metric("logagg_connections_refused_total", transport="syslog-tls", reason="allow") == 1
    assert len(await daemon.logs()) == 1
