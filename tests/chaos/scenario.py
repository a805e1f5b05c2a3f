"""What a scenario is: one row of the table in docs/reliability.md."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """What a run of a scenario showed."""

    #: Figures by name, in the order in which they are printed: "acknowledged": 41200, "missing": 0 ...
    figures: dict[str, int | float | str]
    #: Each promise that was broken, as a sentence with the numbers in it; empty when all held.
    broken: list[str]


class Scenario(NamedTuple):
    """A fault, and what has to be seen."""

    #: As `--only` takes it: `daemon-killed`.
    name: str
    #: The fault in words, for the table.
    fault: str
    #: What has to be seen, for the table.
    promise: str
    #: Runs it in a folder of its own: the full form, or with True the short one of a few seconds for CI.
    run: Callable[[Path, bool], Awaitable[Outcome]]
