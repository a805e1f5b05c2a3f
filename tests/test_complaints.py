"""What is wrong with what is sent is in the daemon's log, without a line for each time."""

import time

import pytest
from structlog.testing import capture_logs

from logagg.collector import complaints
from logagg.collector.complaints import Complaints


def test_the_first_is_said_at_once_and_the_others_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    said = Complaints()
    with capture_logs() as lines:
        for number in range(5):
            said.say("put in quarantine", "tcp", "192.0.2.1", f"bad line {number}", 2)
        said.say("put in quarantine", "tcp", "192.0.2.2", "another sender")
        said.say("put in quarantine", "relp", "192.0.2.1", "another transport")
        now += complaints.PAUSE
        said.say("put in quarantine", "tcp", "192.0.2.1", "x" * 10_000)
    assert [(line["transport"], line["peer"], line["times"]) for line in lines] == [
        ("tcp", "192.0.2.1", 2),
        ("tcp", "192.0.2.2", 1),
        ("relp", "192.0.2.1", 1),
        ("tcp", "192.0.2.1", 9),
    ]
    assert lines[0]["reason"] == "bad line 0"
    assert len(lines[3]["reason"]) < 1000


def test_what_is_remembered_is_bounded() -> None:
    said = Complaints()
    with capture_logs() as lines:
        for number in range(3000):
            said.say("put in quarantine", "tcp", f"sender {number}", "bad")
        said.say("put in quarantine", "tcp", "sender 2999", "bad")
        said.say("put in quarantine", "tcp", "sender 0", "bad")  # forgotten meanwhile
    assert len(lines) == 3001
