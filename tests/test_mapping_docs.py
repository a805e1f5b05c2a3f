"""The tables of docs/mapping.md say what the program does."""

import re
from pathlib import Path

from logagg.protocols.mapping import FIELDS
from logagg.protocols.names import RULES

PAGE = (Path(__file__).parents[1] / "docs" / "mapping.md").read_text()
#: The cells of each line of a table.
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| `")]


def names(cell: str) -> tuple[str, ...]:
    return tuple(re.findall("`([^`]+)`", cell))


def test_the_page_has_every_name_in_its_order() -> None:
    assert {names(row[0])[0]: names(row[1]) for row in ROWS if len(row) == 2} == FIELDS


def test_the_page_has_every_name_that_counts_in_company() -> None:
    told = [
        (names(row[0])[0], names(row[1])[0], {frozenset(names(keys)) for keys in row[2].split(";")}, row[3].strip())
        for row in ROWS
        if len(row) == 4
    ]
    assert told == [(rule.field, rule.name, set(rule.company), rule.sender) for rule in RULES]


def test_the_page_says_of_every_field_what_is_understood() -> None:
    assert {name for row in ROWS if len(row) == 3 for name in names(row[0])} == FIELDS.keys()
