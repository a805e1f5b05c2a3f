"""Every scenario of `make chaos` in its short form: the promise holds, and the figures are not of nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from logagg.tests.chaos.harness import compare, perform
    from logagg.tests.chaos.scenario import Scenario
    from logagg.tests.chaos.scenarios import SCENARIOS
    from logagg.tests.chaos.senders import Book
else:
    from chaos.harness import compare, perform
    from chaos.scenarios import SCENARIOS
    from chaos.senders import Book


pytestmark = pytest.mark.alone


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
async def test_a_promise_holds(scenario: Scenario) -> None:
    figures, broken = await perform(scenario, short=True)
    assert broken == []
    if reasons := [value for value in figures.values() if str(value).startswith("not done: ")]:
        pytest.skip(str(reasons[0]))
    counts = {
        name: value
        for name, value in figures.items()
        if re.search(r"acknowledged|sent\b|stored|records in|neighbours$|found", name)
    }
    assert any(counts.values()), figures
    assert 0 not in [value for name, value in counts.items() if name.startswith(("acknowledged,", "sent,"))], figures


def test_what_is_missing_twice_or_a_stranger_is_seen() -> None:
    keyed = Book("keyed", sent={1, 2, 3, 4}, acknowledged={1, 2, 3}, again=4)
    plain = Book("plain", once=False, sent={5, 6}, acknowledged={5})
    keyed.answers.update([200, 503, 429])
    figures, broken = compare([keyed, plain], [1, 3, 3, 5, 5, 9])
    assert broken == [
        "keyed: 429 was answered 1 times",
        "keyed: 1 missing, of 2 to 2",
        "keyed: 1 there twice, of 3 to 3",
        "1 there that nobody sent, of 9 to 9",
    ]
    assert figures == {
        "acknowledged, keyed": 3,
        "sent again, keyed": 4,
        "acknowledged, plain": 1,
        "twice, plain (allowed)": 1,
        "missing": 1,
        "twice": 1,
        "found": 6,
    }
    assert compare([plain], [5, 6, 6]).broken == []
