"""The records that the benchmarks send: real log lines where they are at hand, generated ones elsewhere."""

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
LEVELS = ["DEBUG"] * 2 + ["INFO"] * 12 + ["NOTICE"] + ["WARNING"] * 3 + ["ERROR"] * 2 + ["CRITICAL"]
SEVERITY = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "NOTICE": 5, "INFO": 6, "DEBUG": 7}


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
        fields = {
            "timestamp": _rfc3339(self.time),
            "level": self.level,
            "service": self.service,
            "host": self.host,
            "message": self.message,
        }
        return json.dumps(fields | self.attributes, ensure_ascii=False, separators=(",", ":")).encode()

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
            attributes = {"request_id": f"{i * 2654435761 % 2**64:016x}", "user_id": chance.randrange(100_000)}
        host = f"host-{chance.randrange(60):02d}"
        time = start + timedelta(milliseconds=i)
        made.append(Row(time, LEVELS[chance.randrange(len(LEVELS))], service, host, message, attributes))
    return made


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
    return [
        (f"service-{chance.randrange(30)}", " ".join(chance.choices(words, k=chance.randrange(5, 60))))
        for _ in range(50_000)
    ]


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
