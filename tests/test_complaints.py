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
        said.say("put in quarantine", "tcp", "192.0.2.1", "of another kind", kind="other")
        said.say("put in quarantine", "tcp", "192.0.2.1", "another listener", listener="tcp_listen")
        now += complaints.PAUSE
        said.say("put in quarantine", "tcp", "192.0.2.1", "x" * 10_000)
    assert [(line["transport"], line["peer"], line["times"]) for line in lines] == [
        ("tcp", "192.0.2.1", 2),
        ("tcp", "192.0.2.2", 1),
        ("relp", "192.0.2.1", 1),
        ("tcp", "192.0.2.1", 1),
        ("tcp", "192.0.2.1", 1),
        ("tcp", "192.0.2.1", 9),
    ]
    assert [line.get("listener") for line in lines] == [*[None] * 4, "tcp_listen", None]
    assert lines[0]["reason"] == "bad line 0"
    assert len(lines[-1]["reason"]) < 1000


def test_many_senders_are_not_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    said = Complaints()
    with capture_logs() as lines:
        for number in range(3000):
            said.say("put in quarantine", "udp", f"sender {number}", "bad")
        assert len(lines) == complaints.MOST_LINES
        said.say("put in quarantine", "udp", "sender 0", "bad")  # forgotten meanwhile: what is remembered is bounded
        now += complaints.PAUSE
        said.say("put in quarantine", "udp", "sender 2999", "bad")
    *_, more, last = lines
    assert more == {"event": "more senders were wrong than are named", "log_level": "warning", "times": 2941}
    assert (last["peer"], last["times"]) == ("sender 2999", 1)
