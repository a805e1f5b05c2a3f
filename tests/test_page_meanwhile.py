"""The page, in a browser: an answer that comes late takes nothing from somebody who has gone on meanwhile."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Route

    from logagg.tests.browser import Site

pytest_plugins = ["browser"]

RECORDS = re.compile(r"/logs\?")


@contextmanager
def held(site: Site, address: re.Pattern[str], ask: Callable[[], object]) -> Iterator[Site]:
    """Ask, and hold back the answers to these questions; they come at the end."""
    routes: list[Route] = []
    site.page.route(address, lambda route: routes.append(route))  # Playwright writes to it
    with site.page.expect_request(address):
        ask()
    yield site
    for route in routes:
        route.continue_()
    site.page.unroute(address)


def test_typed_while_the_page_goes_further_back_by_itself(site: Site) -> None:
    site.send({"message": "moa", "timestamp": "2019-05-05T05:05:05Z"})
    query = site.page.get_by_label("Query")
    with held(site, re.compile(r"/logs\?.*limit=1$"), lambda: site.open("moa")):
        site.page.keyboard.press("/")
        site.page.keyboard.type("moa or emu")
    expect(site.lines).to_have_count(1)
    assert site.asked("since") == "all"
    expect(query).to_have_value("moa or emu")
    site.expect_focus(query)
    query.press("Enter")
    expect(site.page).to_have_title("moa or emu - logagg")


def test_a_range_that_is_being_typed_is_not_put_aside_by_one_further_back(site: Site) -> None:
    site.send({"message": "kea", "timestamp": "2019-05-05T05:05:05Z"})
    with held(site, re.compile(r"/logs\?.*limit=1$"), lambda: site.open("kea")):
        site.page.get_by_label("Time range").select_option("custom")
        site.page.get_by_label("From", exact=True).focus()
    expect(site.page.locator("#empty")).to_contain_text("The newest that matches is of 2019-05-05")
    expect(site.page.get_by_label("Time range")).to_have_value("custom")
    site.expect_focus(site.page.get_by_label("From", exact=True))


def test_a_time_is_typed_digit_by_digit(site: Site) -> None:
    site.send({"message": "rhea", "timestamp": "2020-02-02T11:30:00Z"}, {"message": "rhea"})
    site.open("rhea")
    site.page.get_by_label("Time range").select_option("custom")
    site.page.get_by_label("From", exact=True).focus()  # holds a whole time, so each digit makes another
    site.page.keyboard.type("02022020122959PM")
    expect(site.page.get_by_label("From", exact=True)).to_have_value("2020-02-02T12:29:59")
    expect(site.lines).to_have_count(2)


def test_text_that_was_not_sent_stays_until_another_query_is_shown(site: Site) -> None:
    site.send({"message": "coot", "level": "ERROR"}, {"message": "coot", "level": "INFO"})
    query = site.page.get_by_label("Query")
    site.open("coot")
    expect(site.facet("level", "ERROR")).to_be_visible()
    query.fill("coot -duck")
    site.page.get_by_label("Time range").select_option("1h")
    expect(query).to_have_value("coot -duck")
    expect(site.page.locator("[aria-busy]")).to_have_count(0)  # the line is not drawn anew under the click
    site.facet("level", "ERROR").locator(".value").click()
    expect(query).to_have_value("coot -duck level=ERROR")
    expect(site.lines).to_have_count(1)
    query.fill("coot -duck -goose")
    with held(site, RECORDS, site.page.go_back):
        expect(query).to_have_value("coot")
        query.fill("coot -swan")
    expect(site.lines).to_have_count(2)
    expect(query).to_have_value("coot -swan")


def test_a_query_typed_before_the_page_has_loaded_is_kept(site: Site) -> None:
    with held(site, re.compile("/assets/app.js"), lambda: site.page.goto(site.url, wait_until="commit")):
        site.page.get_by_label("Query").fill("typed early")
    expect(site.page.get_by_role("button", name="Local")).to_be_visible()  # it runs
    expect(site.page.get_by_label("Query")).to_have_value("typed early")


def test_what_is_wrong_with_a_query_does_not_move_who_goes_on_typing(site: Site) -> None:
    query = site.page.get_by_label("Query")
    site.open()
    expect(site.page.locator("[aria-busy]")).to_have_count(0)
    query.fill("level>=loud (x")
    with held(site, RECORDS, lambda: query.press("Enter")):
        site.page.keyboard.type(") y")
    expect(site.page.get_by_role("alert")).to_contain_text("level>=loud (x\n")
    site.page.keyboard.type("z")
    expect(query).to_have_value("level>=loud (x) yz")
    query.fill("level>=loud")
    with held(site, RECORDS, lambda: query.press("Enter")):
        site.page.get_by_label("Time range").focus()
    expect(site.page.get_by_role("alert")).to_contain_text("level>=loud\n")
    site.expect_focus(site.page.get_by_label("Time range"))
    site.expect_refusals()


def test_counts_and_neighbours_that_come_leave_the_focus_on_what_it_was_on(site: Site) -> None:
    for n in range(30):
        site.send({"message": f"rail {n}", "service": "reed", "host": "lake", "timestamp": site.ago(100 - n)})
    site.open('"rail 15"')
    site.facet("service", "reed").locator(".value").focus()
    site.page.keyboard.press("Enter")
    expect(site.facet("service", "reed").locator("[aria-pressed=true].value")).to_be_visible()
    site.expect_focus(site.facet("service", "reed").locator(".value"))
    expect(site.page.locator("#results.stale")).to_have_count(
        0
    )  # else the line that is opened may be of the answer before
    site.lines.locator("summary").first.click()
    expect(site.page.locator(".to-context").first).to_be_visible()
    site.page.keyboard.press("c")
    context = site.lines.locator(".context")
    context.get_by_role("button", name="More").focus()
    site.page.keyboard.press("Enter")
    expect(context.locator("li")).to_have_count(30)
    site.expect_focus(context.locator("[aria-current] > details > summary"))


def test_a_range_that_is_being_chosen_outlives_the_bars_that_come(site: Site) -> None:
    site.send(*({"message": "ruff", "timestamp": site.ago(n * 600)} for n in range(40)))
    site.open("ruff")
    expect(site.page.locator("#told")).to_contain_text("40 records")
    chart = site.page.get_by_role("slider", name="Range of time")
    with held(site, re.compile("/logs/histogram"), lambda: site.page.keyboard.press("r")):
        chart.focus()
        for _ in range(12):
            site.page.keyboard.press("Shift+ArrowLeft")
        chosen = chart.get_attribute("aria-valuetext") or ""
    expect(site.page.locator("#over-time[aria-busy]")).to_have_count(0)
    assert " to " in chosen
    expect(chart).to_have_attribute("aria-valuetext", chosen)
