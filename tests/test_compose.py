"""The profiles of docker-compose.yml: what they add, and that their configurations fit each other."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return dict(YAML(typ="safe").load(ROOT / "docker-compose.yml"))


def test_compose_profiles_add_and_change_nothing_by_themselves(content: dict[str, Any]) -> None:
    services = content["services"]
    assert {name for name, each in services.items() if "profiles" not in each} == {"postgres", "logagg"}
    for name in ("prometheus", "grafana", "jaeger"):
        assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in services[name]["ports"])


def test_compose_profiles_fit_what_they_are_for(content: dict[str, Any]) -> None:
    configs = {name: YAML(typ="safe").load(each["content"]) for name, each in content["configs"].items()}
    used = {each["source"] for service in content["services"].values() for each in service.get("configs", [])}
    assert used == set(configs)
    assert not [each for each in configs if "$" in content["configs"][each]["content"]]  # compose would replace it
    assert configs["prometheus"]["scrape_configs"][0]["static_configs"] == [{"targets": ["logagg:8000"]}]
    mounted = [each.split(":")[0] for each in content["services"]["prometheus"]["volumes"] if each.startswith("./")]
    assert all((ROOT / each).is_file() for each in mounted)
    assert {Path(each).name for each in mounted} == set(configs["prometheus"]["rule_files"])
    (output,) = configs["fluent-bit"]["pipeline"]["outputs"]
    assert (output["host"], output["port"], output["require_ack_response"]) == ("logagg", 24224, True)
    named = {each.split(":")[0] for service in content["services"].values() for each in service.get("volumes", [])}
    assert {each for each in named if not each.startswith((".", "/"))} == set(content["volumes"])
