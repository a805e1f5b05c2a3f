"""What every dashboard of ours for Grafana has to be."""

import json
import re
from typing import Any


def check_board(board: dict[str, Any]) -> None:
    """It can be imported: one data source for all, panels of known types that do not lie on each other."""
    (source,) = board["__inputs"]
    assert set(re.findall(r'"uid": "(\$\{\w+\})"', json.dumps(board))) == {f"${{{source['name']}}}"}
    assert board["id"] is None
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} <= {each["id"] for each in board["__requires"]}
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie on each other"
    assert max(x for x, _ in cells) < 24
