"""SIGHUP: settings that can change while the daemon runs do; the others are named, and wrong ones change nothing."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from logagg.tests.processes import PATIENCE, events, free_port, process, wait_ready
else:
    from processes import PATIENCE, events, free_port, process, wait_ready

ALERT = """
[retention_for]
"service=chatty" = "1d"
[[alerts]]
name = "busy"
query = "level>=warning"
threshold = 10
window = "5m"
webhook = "http://127.0.0.1:9/"
"""


def test_settings_are_read_again(database_url: str, tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "logagg.toml"
    path.write_text("")
    with process(database_url=database_url, http_listen=f"127.0.0.1:{port}", config=str(path)) as daemon:
        wait_ready(port)
        assert daemon.stderr
        log = ""
        for text, heard in (
            ('retention = "3d"\nbuffer_records = 5\n', "have changed"),
            ('retention = "never"\n', "nothing is changed"),
            (ALERT, "read again"),
            ('log_level = "debug"\n', "read again"),
            ('log_level = "error"\n', "read again"),  # which is said no more
        ):
            path.write_text(text)
            daemon.send_signal(signal.SIGHUP)
            end = time.monotonic() + PATIENCE
            while "error" not in text and time.monotonic() < end:
                line = daemon.stderr.readline()
                log += line
                if heard in line:
                    break
        time.sleep(0.2)
        daemon.terminate()
        _, rest = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 0
    assert rest == ""
    said = events(log)
    changed = [event["changed"] for event in said if event["event"] == "settings are read again"]
    assert list(map(list, changed)) == [
        ["retention"],
        ["retention", "retention_for", "alerts"],
        ["retention_for", "alerts", "log_level"],
    ]
    later = [event["settings"] for event in said if "need a restart" in event["event"]]
    assert list(map(list, later)) == [["buffer_records"]]
    [wrong] = [event for event in said if "nothing is changed" in event["event"]]
    assert wrong["reason"].startswith(f"{path}:1: retention: ")
