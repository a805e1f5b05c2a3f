"""What docs/query-language.md says of the language is so."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from logagg.query.errors import QueryError
from logagg.query.evaluate import evaluate
from logagg.query.language import MAX_DEPTH, MAX_QUERY, MAX_REGEXES, MAX_TERMS, parse
from logagg.query.text import MAX_REGEX, MAX_STARS, MAX_WORDS
from logagg.sinks.frames import SCHEMA

PAGE = (Path(__file__).parents[1] / "docs" / "query-language.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    lines = PAGE[PAGE.index(heading) :].split("\n|---", 1)[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def finds(query: str, record: str) -> bool:
    attributes = record if record.startswith("{") else None
    if attributes:
        json.loads(attributes)
    row = {"message": "" if attributes else record, "attributes": attributes}
    frame = pl.DataFrame([row], schema={name: SCHEMA[name] for name in row})
    return bool(evaluate(parse(query), frame)[0])


@pytest.mark.parametrize("query", [query for first, *_ in table("# The query language") for query in code(first)])
def test_what_may_be_written_can_be_read(query: str) -> None:
    parse(query)


@pytest.mark.parametrize(("query", "there", "not_there"), [tuple(row) for row in table("## Examples")])
def test_an_example_finds_what_it_says(query: str, there: str, not_there: str) -> None:
    (text,) = code(query)
    assert [finds(text, record) for record in code(there)] == [True]
    assert [finds(text, record) for record in code(not_there)] == [False]


@pytest.mark.parametrize("query", [query for _, ours, *_ in table("## If you know") for query in code(ours)])
def test_our_column_of_the_comparison_can_be_read(query: str) -> None:
    parse(query)


def test_the_mistake_is_answered_so() -> None:
    call, said, *place = re.search(r"^\$ logagg search (.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1].splitlines()  # type: ignore[index]  # it is there
    with pytest.raises(QueryError) as caught:
        parse(call.strip("'"))
    assert str(caught.value).splitlines() == [said.removeprefix("logagg: QUERY: "), *place]


def test_the_limits_are_these() -> None:
    limits = " ".join(cell for row in table("## Limits") for cell in row)
    for limit in (MAX_QUERY, MAX_TERMS, MAX_DEPTH, MAX_WORDS, MAX_STARS, MAX_REGEXES, MAX_REGEX):
        assert f"{limit:,}" in limits
