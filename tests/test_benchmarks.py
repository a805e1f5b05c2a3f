"""The benchmarks run, with few records, and what they ask is answered rightly. Their figures do not matter here."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from logagg.collector import wiring
from logagg.collector.settings import Settings
from logagg.protocols.columns import Columnar, from_records
from logagg.protocols.http import Request
from logagg.protocols.journald import JournalDecoder
from logagg.protocols.json_columns import decode_body
from logagg.protocols.record import Decoded, Origin

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[1]
LINES = "Splunk HEC, lines"
#: What is sent has no level: Filebeat does not look into the lines of files. Or none like ours: OTLP has no NOTICE.
WITHOUT_LEVELS = {
    *(LINES, "Elasticsearch bulk of Filebeat"),
    *("Lumberjack, windows of 2,048", "Lumberjack, windows of 2,048, zlib", "OTLP, JSON", "OTLP, protobuf"),
}


def run(module: str, *arguments: str, statuses: Sequence[int] = (0,)) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode in statuses, done.stdout + done.stderr
    return done.stdout


def cells(output: str, name: str) -> list[str]:
    """Return the cells of the first row of a table that begins with this."""
    row = re.search(rf"^\| ({re.escape(name)}.*) \|", output, re.MULTILINE)
    assert row, f"no row {name!r} in:\n{output}"
    return [cell.strip() for cell in row[1].split("|")]


@pytest.mark.parametrize(
    "scenario", ["JSON lines", "1,000 a request", "RFC 5424", "50,000/s", "windows of 128", "chunk, gzip", "zlib"]
)
def test_a_scenario_of_ingest_loses_nothing(postgres_url: str, scenario: str) -> None:
    output = run(
        "benchmarks", "--records=400", "--runs=1", "--seconds=0", f"--only={scenario}", f"--postgres={postgres_url}"
    )
    rate, lost = (cells(output, row)[cell] for row, cell in (("bare COPY", 1), (_full(scenario, output), 6)))
    assert int(rate.replace(",", "")) > 0
    assert lost == "0, 0"


def _full(part: str, output: str) -> str:
    """Return the name of the scenario that has this part."""
    return next(line for line in output.splitlines() if line.startswith("| ") and part in line).split("|")[1].strip()


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Return what gives a module of the benchmarks, which are not installed."""
    monkeypatch.syspath_prepend(ROOT)
    yield lambda name: importlib.import_module(f"benchmarks.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        del sys.modules[name]


def read(scenario: Any, load: Any, file: bytes, settings: Settings) -> list[Decoded | Columnar]:
    """Return what the decoders of a scenario's protocol make of its file."""
    origin, setting = Origin(datetime.now(UTC), "bench", "127.0.0.1"), f"{scenario.listener.lower()}_listen"
    if scenario.kind == "datagrams":
        return [wiring.datagrams(settings)[setting].decode(file.split(b"\n"), origin)]
    if scenario.kind == "http":
        return [each for request, _ in load.requests(file) for each in _of_request(request, settings, origin)]
    pieces = {0: [(file, 0)]} if scenario.kind == "stream" else load.windows(file)
    made = []
    for connection in pieces.values():
        session = wiring.streams(settings)[setting].session()
        made += [turn.decoded for piece, _ in connection for turn in session.feed(piece, origin)]
        made += [turn.decoded for turn in session.close(origin)]
    return made


def _of_request(request: bytes, settings: Settings, origin: Origin) -> list[Decoded | Columnar]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    path, headers = first.split()[1], dict(line.lower().split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    if path == "/ingest":
        return [decode_body(body, origin)]
    if path == "/upload":
        decoder = JournalDecoder(settings.max_frame)
        return [
            batch.decoded for batch in (*decoder.feed(body, origin), *decoder.close(origin))
        ]  # as cursors divide it
    protocols = wiring.over_http(settings)
    protocol = next(each for each in protocols for _, route, _ in each.routes if route == path)
    return [protocol.take(Request("POST", path, {}, headers, body, 1 << 26), origin).decoded]


def test_what_the_scenarios_send_is_read_as_it_is_meant(benchmarks: Callable[[str], Any], tmp_path: Path) -> None:
    settings = Settings.model_validate({"database_url": None, "data_dir": tmp_path})
    workload = benchmarks("workload")
    made = workload.rows(100)
    for scenario in benchmarks("scenarios").scenarios(2):
        chunks = read(scenario, benchmarks("load"), scenario.make(made), settings)
        assert [reject for chunk in chunks for reject in chunk.rejects] == [], scenario.name
        records = pl.concat([_frame(chunk) for chunk in chunks])
        told = ["message", *([] if scenario.name == LINES else ["service"])]
        told += [] if scenario.name in WITHOUT_LEVELS else ["severity"]
        given = [{"message": r.message, "service": r.service, "severity": workload.SEVERITY[r.level]} for r in made]
        assert sorted(records.select(told).rows()) == sorted(pl.DataFrame(given).select(told).rows()), scenario.name


def _frame(decoded: Decoded | Columnar) -> pl.DataFrame:
    return decoded.records if isinstance(decoded, Columnar) else from_records(decoded.records)


def test_rsyslog_is_measured_or_said_to_be_absent(postgres_url: str) -> None:
    output = run(
        "benchmarks", "--records=400", "--runs=1", "--seconds=0", "--only=rsyslog", f"--postgres={postgres_url}"
    )
    assert "skipped: rsyslog" in output or cells(output, "rsyslog")[6] == "0, 0"


def test_the_sustained_load_is_stored_and_packed(postgres_url: str) -> None:
    output = run(
        "benchmarks",
        "--records=400",
        "--runs=1",
        "--seconds=0.5",
        "--patience=5",
        "--only=sustained",
        f"--postgres={postgres_url}",
    )
    assert cells(output, "lost")[1] == "0"
    assert "never packed" not in output


def test_every_question_is_answered_rightly(postgres_url: str) -> None:
    arguments = ("--records=3000", "--runs=2", "--seconds=0.5", "--rate=2000", "--patience=5")
    output = run("benchmarks.query", *arguments, f"--postgres={postgres_url}")
    answers = re.findall(r"\b(\d+) of (\d+)(: [^|]*)? \|$", output, re.MULTILINE)
    assert len(answers) == 10 + 8, output
    assert [each for each in answers if each[0] != each[1]] == []


def test_the_folded_stacks_of_a_profile_are_read() -> None:
    code = (
        "from benchmarks.profile import own, samples\n"
        "text = 'MainThread;run (/a/runners.py:1);load (/p/sinks/store.py:7);f (/lib/polars/frame.py:3) 12\\n'\n"
        "[(s,)] = [(s,) for s in samples(text)]\n"
        "print(own(s), s.seen)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "sinks/store.py load 12\n"


def test_service_levels_are_measured_and_nothing_is_lost(postgres_url: str) -> None:
    if not shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip("rsyslogd is not installed (Debian: apt install rsyslog rsyslog-relp)")
    # 1 says that a level was missed, which a busy machine may.
    output = run("benchmarks.slo", "--seconds=3", "--rate=1000", f"--postgres={postgres_url}", statuses=(0, 1))
    said = re.search(r"([\d,]+) records sent in .* s, ([\d,]+) stored, 0 missing; ([\d,]+) questions", output)
    assert said, output
    assert said[1] == said[2]
    assert cells(output, "availability")[1:3] == ["100.000%", "99.9 %"]
    assert cells(output, "failures")[1] == "0.0000%"
    assert {cells(output, name)[3] for name in ("ingest", "search", "throughput")} <= {"met", "missed"}
