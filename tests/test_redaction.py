"""What shall not be stored is not: not in the tables, not in the journal, not in the quarantine."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgpack
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from logagg.cli.main import cli
from logagg.collector.config import load_settings
from logagg.collector.settings import SettingsError
from logagg.protocols.columns import Columnar, from_records, to_records
from logagg.protocols.record import Decoded, Record, Reject
from logagg.protocols.redaction import BUILT_IN, RedactionError, Redactor, is_card
from logagg.sinks import entries
from logagg.sinks.journal import Journal
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from logagg.tests.daemons import Starter

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EVERY = [rule.name for rule in BUILT_IN]
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"

TRUE = [
    ("email", "from alice@example.com.", "from [redacted:email]."),
    ("email", "user=a.b+c@mail.example.co.uk,next", "user=[redacted:email],next"),
    ("email", "<jürgen@büro.example>", "<[redacted:email]>"),
    ("email", "a@b.io c@d.io", "[redacted:email] [redacted:email]"),
    ("card", "paid with 4111111111111111", "paid with [redacted:card]"),
    ("card", "4111-1111-1111-1111; 5500 0000 0000 0004", "[redacted:card]; [redacted:card]"),
    ("card", "amex 3782 822463 10005", "amex [redacted:card]"),
    ("card", "1234 4111 1111 1111 1111", "1234 [redacted:card]"),
    ("bearer", "Authorization: Bearer abc123.def-456", "Authorization: Bearer [redacted:bearer]"),
    ("bearer", "bearer abcdefghijklmnopqrstuvwxyz==", "bearer [redacted:bearer]"),
    ("url_password", "postgres://u:p@ss:w0rd@db/x", "postgres://u:[redacted:url_password]@db/x"),
    ("url_password", "redis://:secret@cache:6379", "redis://:[redacted:url_password]@cache:6379"),
    ("jwt", f"cookie={JWT};", "cookie=[redacted:jwt];"),
    ("aws_key", "key AKIAIOSFODNN7EXAMPLE used", "key [redacted:aws_key] used"),
]
FALSE = [
    ("email", "getty@tty1.service started"),
    ("email", "user@localhost, a @ b.com, @example.com"),
    ("card", "4111111111111112"),
    ("card", "1700000000000000000 ns, 0.4111111111111111, 94111111111111111119"),
    ("card", "411111111111, 2026-01-02 10:00:00.411111"),
    ("bearer", "bearer authentication failed, the bearer of this"),
    ("url_password", "https://host:8080/path@x http://u@host mail a:b@c"),
    ("jwt", "eyJ, eyJhbGciOi.x"),
    ("aws_key", "AKIA12345, XAKIAIOSFODNN7EXAMPLE"),
]


def record(message: str, attributes: str | None = None, raw: bytes | None = None) -> Record:
    return Record(NOW, NOW, 6, None, None, None, None, None, message, attributes, None, None, raw)


def redacted(redactor: Redactor, *records: Record) -> tuple[list[Record], Counter[str]]:
    """Redact records in both forms, which must agree, and leave what was given as it was."""
    decoded, counts = redactor.redact(Decoded(list(records), []))
    frame = from_records(records)
    columnar, also = redactor.redact(Columnar(frame, []))
    assert isinstance(decoded.records, list)
    assert to_records(frame) == list(records)
    assert isinstance(columnar, Columnar)
    assert to_records(columnar.records) == decoded.records
    assert also == counts
    return decoded.records, counts


def redacted_text(redactor: Redactor, text: str) -> tuple[str, int]:
    """Redact a text as a message and as a value; both must agree."""
    attributes = json.dumps({"a": [text, 'é\n"\\']}, ensure_ascii=False)
    (found,), counts = redacted(redactor, record(text, attributes))
    assert json.loads(found.attributes or "") == {"a": [found.message, 'é\n"\\']}
    assert counts.total() % 2 == 0
    return found.message, counts.total() // 2


@pytest.mark.parametrize(("rule", "text", "expected"), TRUE)
def test_what_a_rule_finds(rule: str, text: str, expected: str) -> None:
    count = expected.count("[redacted:")
    assert redacted_text(Redactor([rule], {}), text) == (expected, count)
    assert redacted_text(Redactor(EVERY, {}), text) == (expected, count)
    assert redacted_text(Redactor(EVERY, {}), f"\n{text}\t")[0] == f"\n{expected}\t"
    raw = text.encode() + b"\xff"
    assert redacted(Redactor(EVERY, {}), record("", None, raw))[0][0].raw == expected.encode() + b"\xff"


@pytest.mark.parametrize(("rule", "text"), FALSE)
def test_what_it_leaves(rule: str, text: str) -> None:
    assert redacted_text(Redactor([rule], {}), text) == (text, 0)


def luhn(digits: str) -> str:
    """Add the digit that makes the checksum right."""
    return next(digits + last for last in "0123456789" if checksum(digits + last) == 0)


def checksum(digits: str) -> int:
    table = {True: [0, 2, 4, 6, 8, 1, 3, 5, 7, 9], False: list(range(10))}
    return sum(table[place % 2 == 1][int(digit)] for place, digit in enumerate(digits[::-1])) % 10


@given(
    st.sampled_from([("4", 16), ("4", 19), ("51", 16), ("2221", 16), ("34", 15), ("6011", 16), ("36", 14), ("62", 17)]),
    st.text("0123456789", min_size=20, max_size=20),
    st.sampled_from(["", " ", "-"]),
    st.sampled_from(["", " ", "card=", "no.", "é", "("]),
)
def test_cards(issuer: tuple[str, int], digits: str, between: str, before: str) -> None:
    start, length = issuer
    number = luhn((start + digits)[: length - 1])
    groups = [4, 6, 9] if length in {14, 15} else [4, 4, 4, 9]
    printed, at = [], 0
    for size in groups:
        printed.append(number[at : at + size])
        at += size
    text = f"{before}{between.join(printed)}"
    assert is_card(number)
    assert redacted_text(Redactor(["card"], {}), text) == (f"{before}[redacted:card]", 1)
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert not is_card(wrong)
    assert redacted_text(Redactor(["card"], {}), before + wrong) == (before + wrong, 0)


@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**53), 2**53),
            st.text(),
            st.sampled_from([case[1] for case in TRUE]),
        ),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
)
def test_attributes_are_equal_but_for_what_was_redacted(value: object) -> None:
    redactor = Redactor(EVERY, {"own": r'x"y\\z'})

    def expected(value: object) -> object:
        if isinstance(value, dict):
            return {name: expected(each) for name, each in value.items()}
        if isinstance(value, list):
            return [expected(each) for each in value]
        if isinstance(value, bool) or value is None:
            return value
        text = redacted(redactor, record(str(value)))[0][0].message
        return value if text == str(value) else text

    text = json.dumps({"a": value, "alice@example.com": 'x"y\\z'}, ensure_ascii=False, separators=(",", ":"))
    if any(0xD800 <= ord(each) < 0xE000 for each in text):
        return
    (found,), _ = redacted(redactor, record("m", text))
    assert json.loads(found.attributes or "") == {"a": expected(value), "alice@example.com": "[redacted:own]"}


def test_a_card_that_is_a_number_and_numbers_that_are_none() -> None:
    attributes = '{"card":4111111111111111,"ratio":1.10,"big":123456789012345678901234567890,"at":1700000000000}'
    (found,), counts = redacted(Redactor(["card"], {}), record("m", attributes))
    assert found.attributes == attributes.replace("4111111111111111", '"[redacted:card]"')
    assert counts == {"card": 1}


def test_rules_of_ones_own() -> None:
    patterns = {"order": r"ORD-\d+", "password": r"(?P<before>(?i:password)[=:]\s*)\S+", "quoted": '^pin="[0-9]+"$'}
    redactor = Redactor(["email"], patterns)
    assert redacted_text(redactor, "ORD-1 Password: x1 a@b.io") == (
        "[redacted:order] Password: [redacted:password] [redacted:email]", 3,
    )  # fmt: skip
    assert redacted_text(redactor, 'pin="12"') == ("[redacted:quoted]", 1)
    assert redacted_text(redactor, 'the pin="12"') == ('the pin="12"', 0)


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        ({"a": "("}, "redact_patterns: a: not a regular expression of Rust's engine: unclosed group"),
        ({"a": "(?<=x)y"}, "look-around"),
        ({"a": r"(.)\1"}, "backreferences"),
        ({"a": "x*"}, "matches where there is nothing"),
        ({"a": r"\w{1000}" * 9}, "too large"),
        ({"a": "x" * 1001}, "1001 characters, at most 1000"),
        ({"A B": "x"}, "'A B' is no name"),
        ({"card": "x"}, "there is a rule of this name"),
    ],
)
def test_patterns_that_cannot_be(patterns: dict[str, str], reason: str) -> None:
    with pytest.raises(RedactionError, match=reason.replace("(", r"\(")):
        Redactor([], patterns)


def test_settings_say_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "logagg.toml"
    file.write_text('redact = "email, cards"')
    with pytest.raises(SettingsError, match="redact: cards: not of url_password, bearer, jwt, aws_key, email, card"):
        load_settings(file)
    file.write_text("[redact_patterns]\norder = '['")
    with pytest.raises(SettingsError, match="redact_patterns: order: not a regular expression"):
        load_settings(file)
    file.write_text("redact = 'email'\n[redact_patterns]\norder = 'ORD'")
    redactor = load_settings(file).redactor
    assert redactor
    assert redactor.names == ["email", "order"]
    assert load_settings().redactor is None


def test_no_text_is_dear() -> None:
    """A long text of what rules begin with; were a rule quadratic, this would take minutes."""
    redactor = Redactor(EVERY, {"own": "(a+)+$"})
    for part in ("a", "a.", "a@", "://", "://a:", "eyJ-", "eyJaaaaaaaaaaa.", "1 ", "4", "bearer ", "1111 1111 1111 "):
        text = part * (200_000 // len(part)) + " a@b.io 4111111111111111 http://a:b@c bearer aaaaaaa1 "
        text += "eyJaaaaaaaaaa.aaaaaaaaaa. AKIAIOSFODNN7EXAMPLE"
        assert redactor.redact(Decoded([record(text)], []))[1]["email"] >= 1


def test_raw_bytes() -> None:
    redactor = Redactor(["email"], {})
    escaped = b'{"m":"al\\u0069ce\\u0040example.com\\u0000","p":"\\u0022"}\xff'
    zipped = b"\x1f\x8b zipped"
    reject = Reject(NOW, "tcp", "::1", "bad: a@b.io", b"\xc3a@b.io\xff\x00")
    records = [
        record("a@b.io\ufffd", None, escaped),
        record("a@b.io\ufffd", None, zipped),
        record("plain\ufffd", None, zipped),
    ]
    decoded, counts = redactor.redact(Decoded(records, [reject]))
    assert isinstance(decoded, Decoded)
    assert [each.raw for each in decoded.records] == [
        b'{"m":"[redacted:email]\\u0000","p":"\\u0022"}\xff',
        b"[redacted]",
        zipped,
    ]
    assert decoded.rejects == [reject._replace(reason="bad: [redacted:email]", raw=b"\xc3[redacted:email]\xff\x00")]
    assert counts == {"email": 3}


SECRETS = ("alice@example.com", "4111111111111111", "hunter22", "abc123def456", "ORD-17")
TEXT = "mail alice@example.com card 4111111111111111 https://u:hunter22@h/ Bearer abc123def456 ORD-17"
SETTINGS = {"redact": ",".join(EVERY), "redact_patterns": {"order": r"ORD-\d+"}}


async def test_nothing_secret_is_stored_whatever_it_comes_by(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    daemon = await start_daemon(**SETTINGS)
    line = json.dumps({"message": TEXT, "user": {"mail": TEXT}})
    bulk = "\n".join([line] * 200)
    for body in (line, bulk, f"{line}\n{{broken {TEXT}", json.dumps({"message": f"{TEXT}\0"})):
        async with daemon.http.post("/ingest", data=body) as answer:
            assert answer.status == 200
    seed = {"message": TEXT, "service": "s", "level": "INFO", "source": "s", "timestamp": "2026-01-02T00:00:00Z"}
    async with daemon.http.post("/logs/ingest", json=seed) as answer:
        assert answer.status == 200, await answer.text()
    stream = {"streams": [{"stream": {"mail": TEXT}, "values": [["1700000000000000000", TEXT]]}]}
    async with daemon.http.post("/loki/api/v1/push", json=stream) as answer:
        assert answer.status == 204
    await daemon.tcp("tcp_listen", f"{line}\nbroken {TEXT}\n".encode())
    await daemon.tcp("syslog_tcp_listen", f"<13>1 - h a - - - {TEXT}\n<13>1 - h a - - - {TEXT}\xff\n".encode("latin-1"))
    event = msgpack.packb(["tag", [[1700000000, {"log": TEXT, "mail": {"to": [TEXT]}}]], {"chunk": "Zg=="}])
    await daemon.tcp("forward_listen", event)
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(f"<13>{TEXT}".encode(), daemon.listening["syslog_udp_listen"])
    async with asyncio.timeout(20):
        while not await daemon.metric("logagg_records_received_total", transport="syslog-udp"):
            await asyncio.sleep(0.01)
    found = await daemon.logs(limit="10000")
    by = Counter(each["source"] for each in found)
    assert len(found) == 1 + 200 + 1 + 1 + 1 + 1 + 1 + 2 + 1 + 1, by
    assert {each["message"].count("[redacted:") for each in found} == {5}
    stored = [str(row) for table in ("logs", "quarantine") for row in await sql.fetch(f"select * from {table}")]  # noqa: S608  # ours
    assert len(stored) == len(found) + 2
    assert not [secret for secret in SECRETS if secret in "".join(stored)]
    for rule in ("email", "card", "url_password", "bearer", "order"):
        assert await daemon.metric("logagg_redacted_total", rule=rule) >= len(found)
    raws = await sql.fetch("select raw from logs where raw is not null union all select raw from quarantine")
    assert len(raws) == 4
    assert all(b"[redacted:email]" in row["raw"] for row in raws)


async def test_nothing_secret_is_journaled(start_daemon: Starter, tmp_path: Path) -> None:
    daemon = await start_daemon(**SETTINGS, data_dir=tmp_path, database_url="postgresql://nobody@127.0.0.1:1/none")
    body = "\n".join([json.dumps({"message": TEXT, "to": TEXT})] * 3 + [f"{{broken {TEXT}"])
    async with daemon.http.post("/ingest", data=body) as answer:
        assert answer.status == 200
    async with asyncio.timeout(20):
        while not await daemon.metric("logagg_records_journaled_total"):
            await asyncio.sleep(0.01)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (tmp_path / "journal").glob("*.journal"):
        (copy / file.name).write_bytes(file.read_bytes())
    journal = Journal.open(copy, 1 << 30)
    try:
        entry = journal.first()
        assert entry
        flush = entries.decode(entry.payload)
        kept = f"{flush.records.rows()} {flush.rejects}"
    finally:
        journal.close()
    assert kept.count("[redacted:email]") >= 7
    assert not [secret for secret in SECRETS if secret in kept]


async def test_a_replay_out_of_quarantine_obeys_the_rules(
    database_url: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went to quarantine before there was a rule is not stored as it is now."""
    store = await Store.open(database_url)
    await store.write([], [Reject(NOW, "tcp", "::1", "not JSON", TEXT.encode())])
    await store.close()
    monkeypatch.setenv("LOGAGG_REDACT", ",".join(EVERY))
    command = ["quarantine", "replay", "--all", "--as", "text", "--database-url", database_url]
    done = await asyncio.to_thread(CliRunner().invoke, cli, command)
    assert done.exit_code == 0, done.output
    message = await sql.fetchval("select message from logs")
    assert message == redacted(Redactor(EVERY, {}), record(TEXT))[0][0].message
    assert await sql.fetchval("select count(*) from quarantine") == 0
