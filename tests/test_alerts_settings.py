"""The rules of alerts in the settings: what is taken, what is said of mistakes, and what is never shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from logagg.cli.main import cli
from logagg.collector.alerts import read_rules

if TYPE_CHECKING:
    from pathlib import Path

FILE = """
[[alerts]]
name = "errors"
query = "service=shop level>=error"
threshold = 10
window = "5m"
webhook = "https://hooks.example/secret-path"
headers = { Authorization = "Bearer secret-key" }

[[alerts]]
name = "backup"
query = "service=backup"
silence = "25h"
webhook = "https://hooks.example/secret-path"

[[alerts]]
name = "new-errors"
new_pattern = true
webhook = "https://hooks.example/secret-path"
"""


def check(path: Path, text: str) -> Any:
    path.write_text(text)
    return CliRunner().invoke(cli, ["check-config", "--config", str(path)], prog_name="logagg")


def test_check_config_takes_them_and_shows_no_secret(tmp_path: Path) -> None:
    checked = check(tmp_path / "logagg.toml", FILE)
    assert checked.exit_code == 0, checked.stderr
    assert "errors, backup, new-errors" in checked.stdout
    assert "secret" not in checked.stdout


def test_check_config_warns_of_a_field_that_is_no_column_but_reads_like_one(tmp_path: Path) -> None:
    checked = check(tmp_path / "logagg.toml", FILE.replace("service=shop", "servce=shop"))
    assert checked.exit_code == 0
    hint = "servce is no column, so an attribute was looked for; did you mean service?"
    assert checked.stderr == f"warning: alert errors: {hint}\n"


def test_check_config_says_every_mistake(tmp_path: Path) -> None:
    wrong = FILE.replace("threshold = 10", "threshold = 0").replace('"25h"', '"long"').replace("query", "qery", 1)
    checked = check(tmp_path / "logagg.toml", wrong)
    assert checked.exit_code == 2
    first, *wrong = checked.stderr.splitlines()
    assert first == "logagg: 3 errors in the settings"
    assert "logagg.toml:2: alerts: alert 1 (errors): threshold: " in wrong[0]
    assert "logagg.toml:2: alerts: alert 1 (errors): qery: unknown key" in wrong[1]
    assert "logagg.toml:10: alerts: alert 2 (backup): silence: 'long' is no duration" in wrong[2]
    assert "secret" not in checked.stderr


def test_each_wrong_alert_has_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = FILE.replace("headers = {", "[alerts.headers]\n#").replace("new_pattern = true", "new_pattern = 3")
    wrong = tables.replace('"25h"', '"long"').replace('name = "new-errors"', "") + FILE[: FILE.index("[[", 5)]
    told = check(tmp_path / "logagg.toml", wrong).stderr
    lines = wrong.splitlines()
    for number, (name, problem) in {2: (" (backup)", "silence: "), 3: ("", "name: is missing")}.items():
        line = [at for at, text in enumerate(lines, 1) if text == "[[alerts]]"][number - 1]
        assert f"logagg.toml:{line}: alerts: alert {number}{name}: {problem}" in told
    fourth = lines.index("[[alerts]]", lines.index("new_pattern = 3")) + 1
    assert f"logagg.toml:{fourth}: alerts: alert 4 (errors): two alerts are named 'errors'" in told
    array = 'alerts = [{name = "a", threshold = 1, webhook = "https://h/"}, {name = "b"}]'
    assert "logagg.toml:1: alerts: alert 2 (b): webhook: is missing" in check(tmp_path / "logagg.toml", array).stderr
    monkeypatch.setenv("LOGAGG_ALERTS", '[{"name": "b"}]')
    assert "LOGAGG_ALERTS: alerts: alert 1 (b): webhook: is missing" in check(tmp_path / "logagg.toml", array).stderr


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "has no condition; expected threshold, silence or new_pattern"),
        ({"threshold": 1, "silence": "1h"}, "has threshold and silence"),
        ({"silence": "1h", "window": "1h"}, "has silence and window"),
        ({"threshold": 1, "query": "(a"}, "query: "),
        ({"threshold": 1, "webhook": "ftp://secret/"}, "webhook: no address of a webhook; expected https://host/path"),
        ({"threshold": 1, "webhook": "http://:0/secret"}, "webhook: no address"),
        ({"threshold": 1, "headers": {"A": "secret\nB: c"}}, "headers: the value of A holds what no header can"),
        ({"threshold": 1, "headers": {"A b": "secret"}}, "headers: 'A b' is no name of a header"),
        ({"threshold": 1, "every": "0s"}, "every: has to be at least 100ms"),
        ({"threshold": 1, "name": "a b"}, "name: expected 1 to 100 letters, digits, "),
        ({"threshold": 0, "query": 1}, "query: expected text; alert 1 (a): threshold: has to be at least 1"),
    ],
)
def test_a_rule_that_cannot_be(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="alert 1") as error:
        read_rules([{"name": "a", "webhook": "https://secret/", **rule}])
    assert said in str(error.value)
    assert "secret" not in str(error.value)


def test_names_are_used_once_and_the_environment_has_json() -> None:
    text = '[{"name": "a", "threshold": 1, "webhook": "https://h/"}, {"name": "a", "silence": "1h", "webhook": "https://h/"}]'
    with pytest.raises(ValueError, match="two alerts are named 'a'"):
        read_rules(text)
    with pytest.raises(ValueError, match="no JSON"):
        read_rules("[")
    with pytest.raises(ValueError, match="expected tables"):
        read_rules('{"name": "a"}')
    assert read_rules("") == ()
