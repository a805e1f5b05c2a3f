"""`logagg patterns`: the range it looks at, what changed, and the members."""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from logagg.tests.scripted import Answer, Scripted, logagg
else:
    from scripted import Answer, Scripted, logagg

ROW = {
    "pattern": "user <*>\nleft \x1b[2J", "count": 1200, "first_seen": "2026-11-20T09:00:00Z",
    "last_seen": "2026-11-20T10:00:00.5Z", "services": ["a", "b", "c", "d"], "example": "user 1\nleft",
}  # fmt: skip


def test_all_levels_of_the_range_asked_for_and_which_one_that_was() -> None:
    with Scripted(lambda *_: (200, {}, [ROW])) as server:
        asked = ("patterns", "--utc", "--since", "2026-11-19", "--url", server.url)
        found = logagg(*asked)
        assert found.stdout == (
            "COUNT  LAST SEEN                 SERVICES  PATTERN\n"
            " 1200  2026-11-20 10:00:00.500Z  a,b,c +1  user <*>\\nleft \\x1b[2J\n"
        )
        assert found.stderr == "... messages of all levels, from 2026-11-19 00:00:00.000Z to now\n"
        until = logagg(*asked, "level>=error", "--until", "2026-11-20", "--since", "2026-11-18")
        assert (
            until.stderr == "... messages that match QUERY, from 2026-11-18 00:00:00.000Z to 2026-11-20 00:00:00.000Z\n"
        )
        assert logagg(*asked, "--level", "err").stderr.startswith("... messages of level ERROR, from 2026-11-19")
        lines = logagg(*asked, "-o", "jsonl")
        assert (json.loads(lines.stdout), lines.stderr) == (ROW, "")
    assert server.seen[0] == ("/logs/patterns", {"q": "*", "limit": "50", "start_time": "2026-11-19T00:00:00Z"})


@pytest.mark.parametrize(
    ("args", "start"),
    [
        ([], timedelta(hours=24)),
        (["--new-since", "1h"], timedelta(hours=1)),
        (["--new-since", "1h", "--since", "3h"], timedelta(hours=3)),
    ],
)
def test_how_far_back_it_looks(args: list[str], start: timedelta) -> None:
    before = datetime.now(UTC)
    with Scripted(lambda *_: (200, {}, [])) as server:
        assert logagg("patterns", *args, "--url", server.url).exit_code == 0
    asked = server.seen[0][1]
    assert before <= datetime.fromisoformat(asked["start_time"]) + start <= datetime.now(UTC)
    if "--new-since" in args:
        assert before <= datetime.fromisoformat(asked["new_since"]) + timedelta(hours=1) <= datetime.now(UTC)


def test_what_is_new_and_what_grew() -> None:
    changes: list[dict[str, Any]] = [
        {"new": True, "before": 0, "growth": None},
        {"new": False, "before": 480, "growth": 2.5},
        {"new": False, "before": 0, "growth": None},
    ]
    rows = [{**ROW, "pattern": "p", **change} for change in changes]
    with Scripted(lambda *_: (200, {}, rows)) as server:
        asked = ("patterns", "--new-since", "1h", "--utc", "--url", server.url)
        assert [line[:14].rstrip() for line in logagg(*asked).stdout.splitlines()] == [
            "COUNT  CHANGE",
            " 1200  new",
            " 1200  x 2.5",
            " 1200  -",
        ]
        assert logagg(*asked, "-o", "csv").stdout.splitlines()[0].endswith(",services,new,before,growth")


def members(*lines: object) -> Any:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return lambda *_: (200, {}, body)


FOUND = [{"id": 1, "pattern": "a <*>"}, {"id": 2, "pattern": "b \u202e"}]


def test_members_are_of_all_times_and_levels() -> None:
    with Scripted(members(*FOUND)) as server:
        done = logagg("patterns", "--members", "-o", "jsonl", "--url", server.url)
        assert (done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr) == (0, FOUND, "")
        asked = ("patterns", "x", "--members", "--url", server.url)
        assert logagg(*asked).stdout == "1  a <*>\n2  b \\u202e\n"
        assert logagg(*asked, "-o", "csv").stdout == "id,pattern\n1,a <*>\n2,b \u202e\n"
    assert server.seen[:2] == [("/logs/patterns/members", {}), ("/logs/patterns/members", {"q": "x"})]
    assert logagg("patterns", "--members", "--new-since", "1h").exit_code == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (members(*FOUND, {"incomplete": "1,000,000 records"}), "the answer is not whole: 1,000,000 records"),
        (lambda *_: (200, {}, b'{"id":1,"pattern":"x"}\n{"id"'), "the answer is not whole: it broke off in a line"),
        (lambda *_: (200, {}, b"<html>\n"), "a line of the answer is no object; is it logagg?"),
        (lambda *_: (400, {}, {"detail": "no"}), "no"),
    ],
)
def test_members_that_are_not_whole(answer: Any, message: str) -> None:
    def told(path: str, params: dict[str, str], body: bytes) -> Answer:
        found: Answer = answer(path, params, body)
        return found

    with Scripted(told) as server:
        done = logagg("patterns", "--members", "--url", server.url)
    assert (done.exit_code, done.stderr) == (2, f"logagg: {message}\n")
