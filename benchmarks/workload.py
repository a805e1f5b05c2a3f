"""The records that the benchmarks send: real log lines where they are at hand, generated ones elsewhere."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
LEVELS = ["DEBUG"] * 2 + ["INFO"] * 12 + ["NOTICE"] + ["WARNING"] * 3 + ["ERROR"] * 2 + ["CRITICAL"]
SEVERITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "NOTICE": 5, "INFO": 6, "DEBUG": 7}
#: Records after which a `Stream` repeats its lines, with new times and ids.
CYCLE = 200_000


@dataclass(frozen=True, slots=True)
class Row:
    """One record of the workload."""

    time: datetime
    level: str
    service: str
    host: str
    message: str
    attributes: dict[str, object]

    def as_json(self) -> bytes:
        fields = {"timestamp": self.stamp()} | self.fields()
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    def fields(self) -> dict[str, object]:
        """Return all but the time."""
        named = {"level": self.level, "service": self.service, "host": self.host, "message": self.message}
        return named | self.attributes

    def stamp(self) -> str:
        """Return the time as RFC 3339, with microseconds."""
        return _rfc3339(self.time)

    def as_copy(self) -> bytes:
        """One line of PostgreSQL's text COPY: the columns of the bare table."""
        attributes = _escaped(json.dumps(self.attributes)) if self.attributes else "\\N"
        fields = (_rfc3339(self.time), str(SEVERITY[self.level]), self.service, self.host, _escaped(self.message))
        return "\t".join((*fields, attributes)).encode()

    def as_rfc5424(self) -> bytes:
        head = f"<{8 + SEVERITY[self.level]}>1 {_rfc3339(self.time)} {self.host} {self.service} 123 - - "
        return head.encode() + self.message.encode()

    def as_rfc3164(self) -> bytes:
        stamp = f"{self.time:%b} {self.time.day:2d} {self.time:%H:%M:%S}"
        return f"<{8 + SEVERITY[self.level]}>{stamp} {self.host} {self.service}[123]: {self.message}".encode()


def rows(count: int) -> list[Row]:
    """Return `count` records, a millisecond apart up to now; one in three carries attributes."""
    lines = _corpus() if CORPUS.is_dir() else _generated()
    chance = random.Random(5)
    start = datetime.now(UTC) - timedelta(milliseconds=count)
    made = []
    for i in range(count):
        service, message = lines[i % len(lines)]
        attributes: dict[str, object] = {}
        if i % 3 == 0:
            attributes = {"request_id": request_id(i), "user_id": chance.randrange(100_000)}
        host = f"host-{chance.randrange(60):02d}"
        time = start + timedelta(milliseconds=i)
        made.append(Row(time, LEVELS[chance.randrange(len(LEVELS))], service, host, message, attributes))
    return made


def request_id(number: int) -> str:
    """Return the unique id that record `number` carries, if it carries any."""
    return f"{number * 2654435761 % 2**64:016x}"


class Stream:
    """JSON lines without end: the same rows again and again, each time with new times and new request ids.

    What costs several microseconds a record to make costs a fraction of one to change, so that the sender leaves the
    cores to those who are measured.
    """

    def __init__(self, made: list[Row]) -> None:
        lines = [row.as_json() + b"\n" for row in made]
        self.ends = [0, *accumulate(map(len, lines))]
        self._data = np.frombuffer(b"".join(lines), np.uint8).copy()
        starts = np.array(self.ends[:-1])
        self._times = starts + len('{"timestamp":"')
        self._carriers = np.array([i for i, row in enumerate(made) if row.attributes], np.int64)
        ids = [lines[i].rindex(b'"request_id":"') + len('"request_id":"') for i in self._carriers]
        self._ids = starts[self._carriers] + np.array(ids, np.int64)
        # Real records do not come at even distances, and even ones compress to nothing.
        self._jitter = np.random.default_rng(7).random(len(made))

    def pieces(self, first: int, count: int, start: float, step: float, size: int) -> Iterator[tuple[memoryview, int]]:
        """Yield the lines of records `first` to `first + count`, at most `size` at a time, and how many they are.

        Record `first` happened at `start`, in seconds since 1970, the next ones `step` seconds apart on the average.
        """
        number, end, begin = first, first + count, start - first * step
        while number < end:
            cycle, place = divmod(number, len(self._times))
            until = min(place + size, place + end - number, len(self._times))
            self._stamp(cycle, place, until, begin, step)
            yield self._data.data[self.ends[place] : self.ends[until]], until - place
            number += until - place

    def _stamp(self, cycle: int, place: int, until: int, begin: float, step: float) -> None:
        """Write new times and ids into these lines."""
        numbers = cycle * len(self._times) + np.arange(place, until)
        micros = ((begin + (numbers + self._jitter[place:until]) * step) * 1e6).astype("datetime64[us]")
        _write(self._data, self._times[place:until], np.datetime_as_string(micros).astype("S26"))
        first, last = np.searchsorted(self._carriers, (place, until))
        # As request_id() does it; unsigned numbers of 64 bits wrap.
        ids = numbers[self._carriers[first:last] - place].astype(np.uint64) * np.uint64(2654435761)
        if len(ids):
            digits = ids.astype(">u8").tobytes().hex().encode()
            _write(self._data, self._ids[first:last], np.frombuffer(digits, "S16"))


def _write(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64], texts: npt.NDArray[np.bytes_]) -> None:
    """Write texts of one length over the bytes at these places."""
    size = texts.dtype.itemsize
    windows: npt.NDArray[np.bytes_] = np.ndarray((len(data) - size + 1,), texts.dtype, data, strides=(1,))
    windows[places] = texts


def _corpus() -> list[tuple[str, str]]:
    manifest = json.loads((CORPUS / "manifest.json").read_text())
    lines = []
    for entry in manifest["files"]:
        text = (CORPUS / entry["file"]).read_bytes().decode("utf-8", "replace").replace("\0", "")
        service = Path(entry["file"]).stem
        lines += [(service, line.strip()) for line in text.split("\n") if line.strip() and len(line) < 8000]
    random.Random(11).shuffle(lines)
    return lines


def _generated() -> list[tuple[str, str]]:
    chance = random.Random(11)
    words = [f"word{chance.randrange(10**6)}" for _ in range(5000)]
    # What the questions of query.py look for, about as often as in the real lines.
    rare = ["info", "request for user root", "Accepted password for root"]
    return [
        (
            f"service-{chance.randrange(30)}",
            " ".join([*chance.choices(words, k=chance.randrange(5, 60)), *chance.choices(rare, k=i % 10 == 0)]),
        )
        for i in range(50_000)
    ]


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
