"""The page, in a browser, when the daemon goes away and comes back."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from logagg.tests.browser import Run, Site

pytest_plugins = ["browser"]


def shown(site: Site, count: int) -> list[str]:
    """Return the messages of the live list, once it has so many."""
    expect(site.page.locator("#tail > li")).to_have_count(count)
    return site.page.locator("#tail .message").all_text_contents()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_live_goes_on_after_a_restart(absent_site: tuple[Site, Run], end: signal.Signals) -> None:
    site, run = absent_site
    with run() as daemon:
        site.send(*({"message": f"dunlin {n}"} for n in range(3)))
        site.open("dunlin", view="live")
        shown(site, 3)
        site.send(*({"message": f"dunlin {n}"} for n in range(3, 40)))
        shown(site, 40)
        # What is committed right before the end may have come to the page, or not.
        site.send(*({"message": f"dunlin {n}"} for n in range(40, 60)))
        daemon.send_signal(end)
        daemon.wait()
    status = site.page.get_by_role("status")
    expect(status).to_contain_text("trying again")
    with run():
        site.send({"message": "snipe"}, *({"message": f"dunlin {n}"} for n in range(60, 70)))
        expect(status).to_have_text("Following.")
        site.send({"message": "dunlin 70"})
        assert shown(site, 71) == [f"dunlin {n}" for n in range(71)]
        site.page.goto("about:blank")
    site.expect_refusals()
