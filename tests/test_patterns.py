import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.query.masks import MAX_LINE, line_masker, mask_phrases
from logagg.query.templates import Mined, head, mine

PATTERNS = Path(__file__).parents[2] / "shared" / "patterns"

#: What one fixed configuration reaches on each system, less a margin of about 0.02.
LEAST = {
    "Android": 0.96,
    "Apache": 0.99,
    "HDFS": 0.98,
    "HPC": 0.93,
    "Hadoop": 0.97,
    "Linux": 0.97,
    "Proxifier": 0.97,
    "Spark": 0.97,
    "Windows": 0.98,
    "Zookeeper": 0.97,
}


def grouping_accuracy(truth: list[str], labels: list[int]) -> float:
    """Share of messages whose group holds exactly the messages of their true event."""
    events, groups = defaultdict(set), defaultdict(set)
    for place, (event, label) in enumerate(zip(truth, labels, strict=True)):
        events[event].add(place)
        groups[label].add(place)
    right = sum(len(places) for places in events.values() if groups[labels[min(places)]] == places)
    return right / len(truth)


def matches(template: str, text: str) -> bool:
    """Whether the text is the template with each `<*>` replaced by any text."""
    first, *between = template.split("<*>")
    if not between:
        return template == text
    last = between.pop()
    at, end = len(first), len(text) - len(last)
    if not (text.startswith(first) and text.endswith(last)):
        return False
    for part in between:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


def by_template(messages: list[str]) -> dict[str, list[str]]:
    mined = mine(messages)
    groups = defaultdict(list)
    for message, label in zip(messages, mined.labels, strict=True):
        groups[mined.templates[label]].append(message)
    return dict(groups)


@pytest.fixture(scope="module")
def systems() -> dict[str, list[dict[str, str]]]:
    if not PATTERNS.is_dir():
        pytest.skip(f"no ground truth at {PATTERNS}")
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(PATTERNS.glob("*.jsonl"))
    }


def test_grouping_accuracy_on_systems_of_known_truth(systems: dict[str, list[dict[str, str]]]) -> None:
    reached = {
        system: grouping_accuracy([row["event_id"] for row in rows], mine([row["content"] for row in rows]).labels)
        for system, rows in systems.items()
    }
    assert {system: accuracy for system, accuracy in reached.items() if accuracy < LEAST.get(system, 0)} == {}
    assert sum(reached.values()) / len(reached) >= 0.98


def test_real_messages_match_their_templates_in_any_order(systems: dict[str, list[dict[str, str]]]) -> None:
    messages = [row["content"] for rows in systems.values() for row in rows]
    mined = mine(messages)
    assert all(
        matches(mined.templates[label], head(message)) for message, label in zip(messages, mined.labels, strict=True)
    )
    shuffled = sorted(messages, key=lambda message: message[::-1])
    again = mine(shuffled)
    assert again.templates == mined.templates
    assert dict(zip(shuffled, again.labels, strict=True)) == dict(zip(messages, mined.labels, strict=True))


@pytest.mark.parametrize(
    ("messages", "templates"),
    [
        pytest.param(
            [
                f"Failed password for {name} from 10.0.0.{n} port 4{n} ssh2"
                for n, name in enumerate(["ann", "bob", "eve", "ftp", "root", "sam"])
            ],
            ["Failed password for <*> from <*> port <*> ssh2"],
            id="words that vary; a name with a digit that does not",
        ),
        pytest.param(
            ["session opened for user root", "session closed for user root", "session opened for user ann"],
            ["session closed for user <*>", "session opened for user <*>"],
            id="two verbs are two events, accounts are values",
        ),
        pytest.param(
            [f"session {verb} now" for verb in ["opened", "closed", "expired"]],
            None,
            id="a few words are as many events",
        ),
        pytest.param(["eth0: link up", "eth1: link up"], ["eth<*>: link up"], id="names that differ in their digits"),
        pytest.param(
            ["resolved db.one.example.org", "resolved www.two.example.org"], ["resolved <*>.example.org"], id="names"
        ),
        pytest.param(
            ["copied 912 B in 3 ms", "copied 1.2 KB in 4.5 secs", "copied 12 MiB (12582912 bytes) in <1 sec"],
            ["copied <*> in <*>"],
            id="units belong to quantities, and asides to values",
        ),
        pytest.param(["deleting b_1 b_2 b_3", "deleting b_4"], ["deleting b_<*>"], id="lists of any length"),
        pytest.param(["seen 1 2", "seen 3 4"], ["seen <*> <*>"], id="lists of one length are shown as they are"),
        pytest.param(
            ["login uid=0 tty= host=10.0.0.1", "login uid=5 tty=pts/1 host=::1"],
            ["login uid=<*> tty=<*> host=<*>"],
            id="an empty value is a value",
        ),
        pytest.param(
            ["cache hit=true size=1", "cache hit=false size=2"],
            ["cache hit=false size=<*>", "cache hit=true size=<*>"],
            id="true and false are two events",
        ),
        pytest.param(
            [
                '10.0.0.1 "GET /a/1?b=c HTTP/1.1" 200',
                '10.0.0.2 "GET / HTTP/1.0" 404',
                '10.0.0.2 "POST /a HTTP/1.1" 201',
            ],
            ['<*> "GET <*> HTTP/<*>" <*>', '<*> "POST <*> HTTP/<*>" <*>'],
            id="requests keep their method",
        ),
        pytest.param(
            ['agent "curl/8.1"', 'agent "Mozilla/5.0 (X11; Linux)"'], ['agent "<*>"'], id="quoted text is one value"
        ),
        pytest.param(
            ['{"event":"login","ms":1}', '{"event":"logout","ms":2}'],
            ['{"event":"login","ms":<*>}', '{"event":"logout","ms":<*>}'],
            id="words in JSON are words",
        ),
        pytest.param(
            ["[    1.25] usb 1-2: new device", "[11101.50] usb 3-4: new device"],
            ["[<*>] usb <*>: new device"],
            id="padding is layout",
        ),
        pytest.param(
            ["at Wed Jul 27 10:59:53 2005", "at 27/Jul/2005:10:59:53 +0200", "at 2005-07-27T10:59:53.1Z"],
            ["at <*>"],
            id="dates",
        ),
        pytest.param(
            [
                "job 9f86d081-88ad-4c1f-ae3f-bb6a5f7b7cd2 at 0xdeadbeef",
                "job 00000000-beef-dead-cafe-000000000000 at 0x0",
            ],
            ["job <*> at <*>"],
            id="identifiers",
        ),
        pytest.param(
            ["5,LOGIN_FAILED,10.0.0.1", "6,LOGOUT,10.0.0.2"], ["<*>,LOGIN_FAILED,<*>", "<*>,LOGOUT,<*>"], id="rows"
        ),
        pytest.param(["running", "blocked", "normal", "restart.", "active", "critical"], None, id="single words"),
        pytest.param(
            [
                f"Пользователь {name} вошёл с {n} попытки"
                for n, name in enumerate(["анна", "иван", "мария", "нина", "олег", "пётр"])
            ],
            ["Пользователь <*> вошёл с <*> попытки"],
            id="Cyrillic",
        ),
        pytest.param(
            ["用户 张三 登录失败，来自 10.0.0.1", "用户 张三 登录失败，来自 10.0.0.2"],
            ["用户 张三 登录失败，来自 <*>"],
            id="Chinese",
        ),
        pytest.param(
            ["oops\n  at f(x:1)\n  at g", "oops\r\n", "\n\noops"], ["oops"], id="the first line that is not blank"
        ),
        pytest.param(["a\tb 1", "a b 2"], ["a b <*>"], id="tabs read as spaces"),
        pytest.param(["", " ", "\n"], [""], id="nothing"),
        pytest.param([], [], id="no messages"),
    ],
)
def test_templates(messages: list[str], templates: list[str] | None) -> None:
    assert mine(messages).templates == (sorted(messages) if templates is None else templates)


def test_labels_say_which_messages_are_of_a_template() -> None:
    assert mine(["b 1", "a 1", "b 2"]) == Mined([1, 0, 1], ["a <*>", "b <*>"])


WORDS = ["error", "user", "opened", "node-7", "10.0.0.1", "x=1", "x=", '"a b"', "'c'", "(3)", "<*>", "12 KB", "eth0"]
WORDS += [
    "eth1",
    "a.b.c",
    "FAILED",
    "ab",
    "cd",
    "ef",
    "gh",
    "ij",
    "null",
    "/var/log",
    "[",
    "1,2",
    "Jan 2",
    "  ",
    "è",
    "数",
]
LINES = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


@given(st.lists(LINES | st.text(max_size=30), max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_any_messages_in_any_order_and_number(messages: list[str], order: random.Random) -> None:
    mined = mine(messages)
    assert mined.templates == sorted(set(mined.templates))
    assert set(mined.labels) == set(range(len(mined.templates)))
    for message, label in zip(messages, mined.labels, strict=True):
        assert matches(mined.templates[label], head(message))
    again = messages + order.choices(messages, k=5) if messages else []
    order.shuffle(again)
    shuffled = mine(again)
    assert shuffled.templates == mined.templates
    assert dict(zip(again, shuffled.labels, strict=True)) == dict(zip(messages, mined.labels, strict=True))


@given(st.lists(st.text("0123456789abcdefxZ.:/-_@=,+% ", max_size=25), min_size=2, max_size=6))
@settings(max_examples=150, deadline=None)
def test_a_line_is_masked_alike_whatever_was_masked_before(lines: list[str]) -> None:
    mask = line_masker()
    lines += [line[::-1] for line in lines] + [line.translate(str.maketrans("123", "987")) for line in lines]
    assert [mask(line) for line in lines] == [line_masker()(line) for line in lines]


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "-1.5e3",
        "+7%",
        "1,234",
        "0x7fff",
        "deadbeef",
        "80c2e70",
        "10.1.2.3:80",
        "fe80::1",
        "00:1a:2B:3c:4d:5e",
        "cd:ae:fd:df:ad:ee",
        "FF:F2:9F:16:DA:8D:00:0D:60:E9:23:6A",
        "db1.example.org:5432",
        "Main.java:42",
        "/usr/lib/x.so",
        "C:\\Windows\\x.dll",
        "https://a.b/c?d=e",
        "me@example.org",
        "Lock@1f2e3d4c",
        "2026-11-22T04:01:00.123+01:00",
        "22/Nov/2026:04:01:00",
        "16K",
        "1m30s",
        "12 ms",
        "1.5 GiB",
        "Nov 22 04:01:00",
        "123e4567-e89b-12d3-a456-426614174000",
        "1#2##3",
    ],
)
def test_values_are_masked(value: str) -> None:
    assert mask_phrases(line_masker()(f"took {value}, then")) == "took <*>, then"


@pytest.mark.parametrize(
    "text",
    [
        "ssh2",
        "eth0",
        "n/a",
        "and/or",
        "end.",
        "std::sort",
        "e.g. this",
        "Mark",
        "Maybe",
        "r-o",
        "facade",
        "a=b",
        "数据",
    ],
)
def test_text_is_not_masked(text: str) -> None:
    assert mask_phrases(line_masker()(f"see {text}")) == f"see {text}"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("a" * 60_000, id="a word of 60 KB"),
        pytest.param("7" * 60_000, id="a number of 60 KB"),
        pytest.param("a-" * 30_000, id="a word of 30,000 parts"),
        pytest.param("(" * 60_000, id="brackets"),
        pytest.param("\"'" * 30_000, id="quotes"),
        pytest.param("<*>" * 20_000, id="the mark itself"),
        pytest.param(" ".join(f"w{chr(97 + n % 26)}" for n in range(20_000)), id="20,000 words"),
        pytest.param("x=" * 30_000, id="20,000 empty values"),
        pytest.param("\n" * 60_000 + "end", id="blank lines"),
        pytest.param("\ud800\x00\x1b[31m", id="what is no text"),
    ],
)
def test_hostile_messages(message: str) -> None:
    messages = [message, message + "!", "plain text 1", "plain text 2"]
    mined = mine(messages)
    assert "plain text <*>" in mined.templates
    for text, label in zip(messages, mined.labels, strict=True):
        assert matches(mined.templates[label], head(text))
    assert max(map(len, mined.templates)) <= MAX_LINE + len("<*>")


def test_long_lines_are_told_apart_by_their_beginning() -> None:
    tail = " and so on" * 10_000
    assert sorted(
        by_template([f"dump {n} of {kind}{tail}{n}" for kind in ("heap", "stack") for n in range(3)]).values()
    ) == [[f"dump {n} of {kind}{tail}{n}" for n in range(3)] for kind in ("heap", "stack")]
