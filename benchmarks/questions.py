"""The questions of the search benchmark, with what each must answer, known from what was sent."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from benchmarks.workload import Row, request_id

#: Returns what is wrong with an answer, or None.
Check = Callable[[Any], str | None]


#: Records of a page.
LIMIT = 100
#: In 27 % to 9 % of the real lines.
WORDS = ("for", "info", "to", "state", "broker", "change", "request", "http", "get", "from")
PHRASES = (
    "for user", "request sent", "state change", "correlation id", "become follower", "like gecko", "for user root",
    "leader info", "response to", "in response to",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """One request, and the check of its answer."""

    target: str
    check: Check


@dataclass(frozen=True, slots=True)
class Kind:
    """One line of the table: a kind of question, asked so many times, each time another."""

    name: str
    ask: Callable[[int], Question]
    #: p50 and p95 of VictoriaLogs 1.26, in milliseconds.
    other: tuple[float, float]
    #: Milliseconds for the p95.
    reach: float
    aim: float
    #: Reads everything: left out of the mix during ingest.
    heavy: bool = False


@dataclass
class Known:
    """What is stored: the first `total` records of a stream of `rows`, which repeat."""

    rows: Sequence[Row]
    total: int
    #: The `history` records that were sent first begin here, in seconds since 1970, and last a day.
    start: float
    history: int
    #: While more come in, a count is no less than what is known.
    growing: bool = False
    count: Callable[[str], int] = field(init=False)

    def __post_init__(self) -> None:
        self.count = cache(self._count)

    def each(self, wanted: Callable[[Row], bool]) -> int:
        """Return how many stored records are like this."""
        whole, rest = divmod(self.total, len(self.rows))
        found = [wanted(row) for row in self.rows]
        return whole * sum(found) + sum(found[:rest])

    def _count(self, pattern: str) -> int:
        expression = re.compile(pattern, re.IGNORECASE)
        return self.each(lambda row: bool(expression.search(row.message)))

    def levels(self) -> Counter[tuple[str, str]]:
        """Return the counts by service and level."""
        whole, rest = divmod(self.total, len(self.rows))
        counts = Counter((row.service, row.level) for row in self.rows[:rest])
        for key, count in Counter((row.service, row.level) for row in self.rows).items():
            counts[key] += whole * count
        return +counts

    def newest(self, fits: Callable[[Any], bool], stored: int) -> Check:
        """Check that these are records that fit, newest first, and as many as there must be of so many stored."""

        def check(found: Any) -> str | None:
            least, most = min(stored, LIMIT), LIMIT if self.growing else min(stored, LIMIT)
            if not least <= len(found) <= most:
                return f"{len(found)} records instead of {least}"
            if not all(map(fits, found)):
                return "a record that does not match"
            times = [each["timestamp"] for each in found]
            return None if times == sorted(times, reverse=True) else "not in order of time"

        return check

    def right(self, found: int, expected: int) -> str | None:
        good = found >= expected if self.growing else found == expected
        return None if good else f"{found:,} instead of {expected:,}"


def kinds(known: Known) -> list[Kind]:
    """Return all kinds of questions, in the order of the table."""
    return [
        Kind("needle: one value of one attribute", _needle(known, 'request_id="{}"'), (7, 27), 40, 15),
        Kind("needle: a unique word", _needle(known, "{}"), (7, 27), 40, 15),
        Kind("a word that is nowhere", _nowhere, (6, 44), 30, 10),
        Kind("latest 100 with a common word", _latest(known, WORDS), (158, 176), 30, 10),
        Kind("latest 100 with a phrase", _latest(known, PHRASES), (192, 261), 60, 15),
        Kind("latest 100 of a service and a level", _service_and_level(known), (73, 95), 30, 10),
        Kind("count by service and level over everything", _by_service_and_level(known), (307, 370), 50, 10),
        Kind("histogram of 24 hours in 5-minute bins", _histogram(known), (133, 148), 50, 10),
        Kind("count of a common word over everything", _count_of_word(known), (735, 832), 3500, 700, heavy=True),
        Kind("count of the substring *ssword for*", _count_of_piece(known), (1400, 1500), 3500, 1200, heavy=True),
    ]


def _needle(known: Known, query: str) -> Callable[[int], Question]:
    chance = random.Random(query)
    carriers = [i for i, row in enumerate(known.rows[: known.history]) if row.attributes]

    def ask(_: int) -> Question:
        cycles = (known.history - 1) // len(known.rows) + 1
        number = known.history
        while number >= known.history:
            number = chance.choice(carriers) + chance.randrange(cycles) * len(known.rows)
        value = request_id(number)
        message = known.rows[number % len(known.rows)].message

        def check(found: Any) -> str | None:
            if len(found) != 1:
                return f"{len(found)} records of request_id {value}"
            same = found[0]["message"] == message and found[0]["attributes"]["request_id"] == value
            return None if same else f"another record than that of request_id {value}"

        return Question(_logs(q=query.format(value), limit=LIMIT), check)

    return ask


def _nowhere(number: int) -> Question:
    word = f"nowhere{number}zzqx{number * 7919}"
    return Question(_logs(q=word, limit=LIMIT), lambda found: f"{len(found)} records with {word}" if found else None)


def _latest(known: Known, texts: Sequence[str]) -> Callable[[int], Question]:
    def ask(number: int) -> Question:
        text = texts[number % len(texts)]
        pattern = re.compile(_as_regex(text), re.IGNORECASE)
        query = f'"{text}"' if " " in text or text in ("or", "and", "not") else text
        check = known.newest(lambda each: bool(pattern.search(each["message"])), known.count(_as_regex(text)))
        return Question(_logs(q=query, limit=LIMIT), check)

    return ask


def _service_and_level(known: Known) -> Callable[[int], Question]:
    counts = known.levels()
    pairs = [pair for pair, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    # From the most frequent ones to rare ones.
    pairs = pairs[:: max(1, len(pairs) // 10)][:10]

    def ask(number: int) -> Question:
        service, level = pairs[number % len(pairs)]
        check = known.newest(lambda each: (each["service"], each["level"]) == (service, level), counts[service, level])
        return Question(_logs(service=service, level=level, limit=LIMIT), check)

    return ask


def _by_service_and_level(known: Known) -> Callable[[int], Question]:
    expected = known.levels()

    def check(found: Any) -> str | None:
        counts = {(each["service"], each["level"]): each["count"] for each in found}
        keys = expected.keys() if known.growing else counts.keys() | expected.keys()
        return next(filter(None, (known.right(counts.get(key, 0), expected[key]) for key in keys)), None)

    return lambda _: Question("/logs/aggregations", check)


def _histogram(known: Known) -> Callable[[int], Question]:
    first, last = known.start, known.start + 86_400

    def check(found: Any) -> str | None:
        if found["interval_seconds"] != 300 or not 288 <= len(found["bins"]) <= 290:
            return f"{len(found['bins'])} bins of {found['interval_seconds']} s"
        if sum(each["total"] for each in found["bins"]) != found["total"]:
            return "bins that do not add up"
        return known.right(found["total"], known.history)

    target = "/logs/histogram?" + urlencode({"start_time": _time(first), "end_time": _time(last), "interval": "5m"})
    return lambda _: Question(target, check)


def _count_of_word(known: Known) -> Callable[[int], Question]:
    return lambda number: _count(known, WORDS[number % len(WORDS)], _as_regex(WORDS[number % len(WORDS)]))


def _count_of_piece(known: Known) -> Callable[[int], Question]:
    return lambda _: _count(known, '"*ssword for*"', "ssword for")


def _count(known: Known, query: str, pattern: str) -> Question:
    def check(found: Any) -> str | None:
        return known.right(sum(each["count"] for each in found), known.count(pattern))

    return Question("/logs/aggregations?" + urlencode({"q": query, "by": "level"}), check)


def _as_regex(text: str) -> str:
    r"""Return an expression for these words next to each other; what Python takes for a word is what logagg takes."""
    return r"(?<!\w)" + r"\W+".join(text.split()) + r"(?!\w)"


def _logs(**parameters: object) -> str:
    return "/logs?" + urlencode(parameters)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
