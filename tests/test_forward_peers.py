"""Fluent Forward with others: the handshake, the vectors of fluentd's own tests, a real client."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from logagg.protocols.forward import ForwardSession
from logagg.protocols.record import Origin, Record
from logagg.protocols.session import Turn

if TYPE_CHECKING:
    from logagg.tests.turns import records_of, rejects_of, texts_of
else:
    from turns import records_of, rejects_of, texts_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "forward", "192.0.2.9", None)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = 1_732_000_000
VECTORS = Path(__file__).parents[2] / "shared" / "vectors" / "fluent_forward.json"


def session(**more: Any) -> ForwardSession:
    return ForwardSession(max_frame=100_000, max_inflated=200_000, **more)


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def packed(text: str) -> bytes:
    return pack([AT, {"log": text}])


def digest(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(parts)).hexdigest()


def guarded(**more: Any) -> ForwardSession:
    return session(shared_key="secret", self_hostname="server", nonce=lambda: b"nonce123nonce123", **more)


def ping(key: bytes = b"secret", user: bytes = b"", password: bytes = b"") -> bytes:
    proof = digest(b"salt", b"client", b"nonce123nonce123", key)
    login = digest(b"nonce123nonce123", user, password) if user else ""
    return pack(["PING", "client", b"salt", proof, user.decode(), login])


def test_without_a_key_nothing_is_said_first() -> None:
    assert session().greeting() == b""


def test_a_sender_that_knows_the_key_is_let_in_and_the_server_proves_that_it_does() -> None:
    peer = guarded()
    hello = msgpack.unpackb(peer.greeting())
    turns = [turn for byte in ping() for turn in peer.feed(bytes([byte]), ORIGIN)]

    assert hello == ["HELO", {"nonce": "nonce123nonce123", "auth": "", "keepalive": True}]
    [turn] = turns
    proof = digest(b"salt", b"server", b"nonce123nonce123", b"secret")
    assert msgpack.unpackb(turn.answer) == ["PONG", True, "", "server", proof]
    assert not turn.last
    assert texts_of(peer.feed(pack(["t", packed("a" * 90_000)]), ORIGIN)) == ["a" * 90_000]


def test_a_sender_that_does_not_know_the_key_is_told_so_and_its_digests_are_not_kept() -> None:
    peer = guarded()

    [turn] = peer.feed(ping(key=b"guess"), ORIGIN)

    assert msgpack.unpackb(turn.answer) == ["PONG", False, "shared_key mismatch", "", ""]
    assert turn.last
    assert [(reject.reason, reject.raw) for reject in turn.decoded.rejects] == [
        ("handshake refused: shared_key mismatch", b"")
    ]
    assert peer.feed(ping(), ORIGIN) == []


@pytest.mark.parametrize(
    ("user", "password", "good"),
    [(b"ann", b"pw", True), (b"ann", b"no", False), (b"eve", b"", False), (b"", b"", False)],
)
def test_users_have_to_know_their_password(user: bytes, password: bytes, good: bool) -> None:
    [turn] = guarded(users={"ann": "pw"}).feed(ping(user=user, password=password), ORIGIN)

    assert (msgpack.unpackb(turn.answer)[1], turn.last) == (good, not good)


@pytest.mark.parametrize(
    "wire",
    [
        pack(["t", AT, {"log": "a"}]),
        pack(["PING", "client", b"salt"]),
        pack(["PING", "client", b"salt", 1, 2, 3]),
        ping() + pack(["t", AT, {"log": "a"}]),
        b'["t", 1, {"log": "a"}]',
        b"\x92\xa1t" + b"\xc6\x00\x01\x80\x00" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_no_record_is_taken_before_the_handshake_and_little_is_kept_of_it(wire: bytes) -> None:
    turns = guarded().feed(wire, ORIGIN)

    assert records_of(turns) == []
    assert turns[-1].last
    assert turns[-1].answer == b""
    assert [len(reject.raw) <= 1024 for reject in rejects_of(turns)] == [True]


def test_no_two_connections_have_the_same_nonce() -> None:
    nonces = {msgpack.unpackb(session(shared_key="k").greeting())[1]["nonce"] for _ in range(20)}

    assert len(nonces) == 20
    assert {len(nonce) for nonce in nonces} == {16}


@pytest.mark.skipif(not VECTORS.is_file(), reason=f"no file {VECTORS}")
def test_vector_of_the_handshake() -> None:
    """It does not say its key, so its client is refused; all else is as it has it."""
    [case] = [case for case in json.loads(VECTORS.read_text()) if case["expected_events"] is None]
    peer = session(shared_key="another", self_hostname="server", nonce=lambda: b"nonce123")

    assert peer.greeting().hex() == case["helo_hex"]
    [turn] = peer.feed(bytes.fromhex(case["payload_hex"]), ORIGIN)
    pong = msgpack.unpackb(turn.answer)
    assert list(map(type, pong)) == list(map(type, case["expected_pong"]))
    assert pong[:3] == ["PONG", False, "shared_key mismatch"]


# Others' vectors.


def vectors() -> list[Any]:
    cases = json.loads(VECTORS.read_text()) if VECTORS.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in cases if case["expected_events"] is not None]


def told(record: Record) -> dict[str, Any]:
    attributes = json.loads(record.attributes or "{}")
    attributes.pop("logagg_note", None)
    if record.raw is not None:
        return {"tag": attributes.pop("tag"), "record": attributes, "raw": record.raw.hex()}
    message = {"message": record.message} if record.message else {}
    ts = "RECEIVE_TIME" if record.timestamp == NOW else (record.timestamp - EPOCH).total_seconds()
    return {"tag": attributes.pop("tag"), "ts": ts, "record": message | attributes}


def expected(event: dict[str, Any]) -> dict[str, Any]:
    message = event["record"].get("message")
    if isinstance(message, dict):
        return {"tag": event["tag"], "record": {}, "raw": message["hex"]}
    ts = event["ts"] if "ns" not in event else event["ts"] + event["ns"] // 1000 / 1e6
    return {"tag": event["tag"], "ts": ts, "record": event["record"]}


@pytest.mark.skipif(not VECTORS.is_file(), reason=f"no file {VECTORS}")
@pytest.mark.parametrize("case", vectors())
def test_vector(case: dict[str, Any]) -> None:
    peer, turns = session(), list[Turn]()
    for chunk in case.get("chunks_hex") or [case["payload_hex"]]:
        turns += peer.feed(bytes.fromhex(chunk), ORIGIN)
    turns += peer.close(ORIGIN)

    found, wanted = list(map(told, records_of(turns))), list(map(expected, case["expected_events"]))
    for one, other in zip(found, wanted, strict=True):
        raw = other.pop("raw", "")
        assert raw in one.pop("raw", "")
        assert one == other
    assert b"".join(turn.answer for turn in turns).hex() == case.get("expected_response_hex", "")
    assert case["valid"] or rejects_of(turns)


class Server(asyncio.Protocol):
    """Hands what comes to a session, and keeps the turns."""

    def __init__(self, turns: list[Turn], enough: asyncio.Event, count: int) -> None:
        self.turns, self.enough, self.count = turns, enough, count
        self.session = session()

    def data_received(self, data: bytes) -> None:
        self.turns += self.session.feed(data, ORIGIN)
        if len(records_of(self.turns)) >= self.count:
            self.enough.set()


@pytest.mark.parametrize("nanoseconds", [False, True])
async def test_the_real_client_of_python(nanoseconds: bool) -> None:
    sender = pytest.importorskip("fluent.sender", reason="fluent-logger is not installed")
    turns, enough = list[Turn](), asyncio.Event()
    before = datetime.now(UTC).replace(microsecond=0)
    server = await asyncio.get_running_loop().create_server(lambda: Server(turns, enough, 100), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]

        def send() -> None:
            client = sender.FluentSender("app", port=port, nanosecond_precision=nanoseconds)
            for number in range(100):
                assert client.emit("access", {"message": f"line {number}", "level": "warning", "user": number})
            client.close()

        await asyncio.to_thread(send)
        await asyncio.wait_for(enough.wait(), 20)

    records = records_of(turns)
    assert texts_of(turns) == [f"line {number}" for number in range(100)]
    assert {(record.service, record.severity) for record in records} == {("app.access", 4)}
    assert all(before <= record.timestamp <= datetime.now(UTC) for record in records)
    assert json.loads(records[7].attributes or "") == {"user": 7, "tag": "app.access"}
