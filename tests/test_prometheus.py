"""Metrics as Prometheus wants them, and what asks for them: the docs' table, alerts, a dashboard. promtool judges."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from logagg.collector.metrics import Metrics
from logagg.query.errors import QueryLimit

if TYPE_CHECKING:
    from logagg.tests.boards import check_board
    from logagg.tests.daemons import RunningDaemon, Starter
else:
    from boards import check_board

DOCS = Path(__file__).parents[1] / "docs"
ALERTS = DOCS / "prometheus" / "alerts.yml"
BOARD = json.loads((DOCS / "grafana" / "logagg-metrics.json").read_text(encoding="utf-8"))
METRICS = (DOCS / "metrics.md").read_text(encoding="utf-8")
PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")
#: What Prometheus itself adds: whether a target answers.
ITS_OWN = {"up"}


def promtool(*arguments: str | Path, stdin: str | None = None) -> str:
    """Run promtool; return what it says. It has to agree."""
    done = subprocess.run([PROMTOOL or "", *arguments], input=stdin, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    (group,) = YAML(typ="safe").load(ALERTS)["groups"]
    return [dict(rule) for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Return each query of the dashboard, with the title of its panel."""
    return [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel["targets"]]


async def metrics(daemon: RunningDaemon) -> str:
    """Return the metrics of a daemon that has stored a record and answered a question of each kind."""
    async with daemon.http.post("/ingest", json=[{"service": "shop", "message": "hello"}]) as answer:
        assert answer.status == 200
    (record,) = await daemon.logs(service="shop")
    by_path = {
        f"/logs/{record['id']}": "record", f"/logs/{record['id']}/context": "context", "/logs/histogram": "histogram",
        "/logs/aggregations?by=host": "aggregate", "/logs/patterns": "patterns", "/logs/patterns/members": "members",
        "/logs/export": "export", "/logs": "search",
    }  # fmt: skip
    for path in by_path:
        async with daemon.http.get(path) as answer:
            assert answer.status == 200
            await answer.read()
    for kind in by_path.values():
        assert await daemon.metric("logagg_query_seconds_count", kind=kind) >= 1, kind
    async with daemon.http.get("/metrics", headers={"Accept": "text/plain"}) as answer:
        return await answer.text()


def shown(text: str) -> dict[str, str]:
    """Return the names that queries may use, as the text of `/metrics` has them, and the kind of each."""
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + end: kind for name, kind in kinds.items() for end in parts.get(kind, ("",))}


def labels_of(text: str) -> dict[str, set[str]]:
    """Return the labels of the metrics that have values."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = family.name + ("_total" if family.type == "counter" else "")
            found.setdefault(name, set()).update(sample.labels.keys() - {"le"})
    return found


def documented_labels() -> dict[str, set[str]]:
    """Return the labels that the table says."""
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([\w, ]*?) *\| ", METRICS, re.MULTILINE)
    return {name: set(re.findall(r"\w+", labels)) for names, labels in rows for name in re.findall(r"\w+", names)}


def names_in(expression: str) -> set[str]:
    """Return the metrics of a query."""
    return set(re.findall(r"\b(?:logagg|process)_\w+|\bup\b", expression))


@with_promtool
async def test_metrics_are_named_as_they_should_be(daemon: RunningDaemon) -> None:
    assert not promtool("check", "metrics", stdin=await metrics(daemon))


async def test_the_table_and_all_queries_know_the_metrics(start_daemon: Starter) -> None:
    # With a replica, if one that is away: without, its metric is absent.
    text = await metrics(await start_daemon(reader_database_url="postgresql://nobody@127.0.0.1:1/none"))
    names = shown(text)

    families = {re.sub("_(bucket|sum|count)$", "", name) for name, kind in names.items() if kind == "histogram"}
    families |= {name for name, kind in names.items() if kind != "histogram" and not name.endswith("_created")}
    documented = documented_labels()
    assert documented.keys() == families
    labels = {name: given for name, given in labels_of(text).items() if name in families}
    assert labels == {name: documented[name] for name in labels}

    asked = [(rule["alert"], rule["expr"]) for rule in rules()] + queries()
    unknown = {place: unheard for place, query in asked if (unheard := names_in(query) - names.keys() - ITS_OWN)}
    assert not unknown, "queries ask for metrics that there are not"


def test_a_question_that_a_limit_ends_is_counted() -> None:
    counted = Metrics()
    with counted.question("search"):
        pass
    with pytest.raises(QueryLimit), counted.question("search"):
        raise QueryLimit("too much")
    assert counted.registry.get_sample_value("logagg_query_seconds_count", {"kind": "search"}) == 2
    assert counted.registry.get_sample_value("logagg_query_limits_total", {"kind": "search"}) == 1


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert rule["alert"].startswith("Logagg")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert len(rule["annotations"]["description"]) > 60, rule["alert"]


def test_every_alert_is_tested() -> None:
    tested = (DOCS / "prometheus" / "alerts_test.yml").read_text(encoding="utf-8")
    firing = set(re.findall(r'\{alertname="(\w+)"\}', tested))
    assert firing == {rule["alert"] for rule in rules()}


@with_promtool
def test_alerts_are_right() -> None:
    assert f"{len(rules())} rules found" in promtool("check", "config", DOCS / "prometheus" / "prometheus.yml")
    assert "SUCCESS" in promtool("test", "rules", DOCS / "prometheus" / "alerts_test.yml")


@with_promtool
def test_the_queries_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    values = {"$__rate_interval": "5m", "$__range": "1h", "$instance": ".*"}
    made = []
    for number, (_, query) in enumerate(queries()):
        for name, value in values.items():
            query = query.replace(name, value)
        assert "$" not in query
        made.append({"record": f"panel:query:{number}", "expr": query})
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": made}]}), encoding="utf-8")
    assert f"{len(made)} rules found" in promtool("check", "rules", file)


def test_the_dashboard_can_be_imported() -> None:
    check_board(BOARD)
