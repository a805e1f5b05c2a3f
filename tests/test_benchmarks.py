"""The benchmarks run, with few records, and what they ask is answered rightly. Their figures do not matter here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(module: str, *arguments: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cells(output: str, name: str) -> list[str]:
    """Return the cells of the first row of a table that begins with this."""
    row = re.search(rf"^\| ({re.escape(name)}.*) \|", output, re.MULTILINE)
    assert row, f"no row {name!r} in:\n{output}"
    return [cell.strip() for cell in row[1].split("|")]


@pytest.mark.parametrize("scenario", ["JSON lines", "1,000 a request", "RFC 5424", "50,000/s"])
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
