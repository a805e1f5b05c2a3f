"""All scenarios, in the order of the table in docs/reliability.md."""

from __future__ import annotations

from . import cuts, garbage, journal, kills, poison, restarts

SCENARIOS = [
    *kills.SCENARIOS,
    *cuts.SCENARIOS,
    *journal.SCENARIOS,
    *poison.SCENARIOS,
    *restarts.SCENARIOS,
    *garbage.SCENARIOS,
]
