"""The page, in a browser: counts that are dear, and take their time; and where a record is from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import Route, expect

if TYPE_CHECKING:
    from logagg.tests.browser import Site

pytest_plugins = ["browser"]

HISTOGRAM = "**/logs/histogram?*"


def dear(route: Route) -> None:
    """Give the answer as that of a large store, in which batches had to be read for it."""
    answer = route.fetch()
    body = answer.json()
    body["stats"]["read"] = {"packed": 160}
    route.fulfill(response=answer, json=body)


def test_where_counts_are_dear_few_are_asked_for(site: Site) -> None:
    site.send(
        {"message": "redshank", "level": "ERROR", "service": "mud", "host": "h1"},
        {"message": "redshank", "level": "INFO", "service": "mud", "host": "h2"},
        {"message": "redshank", "level": "INFO", "host": "h2"},
    )
    site.page.route(HISTOGRAM, dear)
    asked: list[str] = []
    site.page.on("request", lambda request: asked.append(request.url) if "/aggregations" in request.url else None)
    site.open("redshank")
    for field, value, count in [
        ("level", "INFO", 2),
        ("service", "mud", 2),
        ("service", "(none)", 1),
        ("host", "h2", 2),
    ]:
        expect(site.facet(field, value)).to_contain_text(str(count))
    expect(site.page.locator("#facet-level .name")).to_have_text(["ERROR", "INFO"])
    expect(site.page.locator("#facet-service .name")).to_have_text(["mud", "(none)"])
    assert len(asked) == 1
    site.facet("level", "ERROR").locator(".value").click()
    expect(site.page.locator("#facet-host .name")).to_have_text(["h1"])
    expect(site.page.locator("#facet-level .name")).to_have_text(["ERROR", "INFO"])  # what could be wanted too
    assert len(asked) == 3


def test_too_many_groups_are_asked_for_one_field_after_the_other(site: Site) -> None:
    site.send({"message": "curlew", "service": "mud", "host": "h1"})
    site.page.route(HISTOGRAM, dear)
    text = "more than 100000 different values of level, service, host; count by less, or ask for less"
    several = "**/logs/aggregations?*by=level%2Cservice%2Chost*"
    site.page.route(several, lambda route: route.fulfill(status=503, json={"detail": text}))
    site.open("curlew")
    for field, value in (("level", "INFO"), ("service", "mud"), ("host", "h1")):
        expect(site.facet(field, value)).to_contain_text("1")
    expect(site.page.locator(".failed")).to_have_count(0)
    site.expect_refusals()


def test_a_panel_that_takes_long_says_for_how_long(site: Site) -> None:
    site.send({"message": "whimbrel"})
    held: list[Route] = []
    site.open("whimbrel")
    told = site.page.locator("#told")
    expect(told).to_contain_text("1 record,")
    site.page.route(HISTOGRAM, lambda route: held.append(route))  # a builtin is refused
    site.open("whimbrel whimbrel")
    expect(site.lines).to_have_count(1)
    expect(site.page.locator("[data-waits]")).to_have_count(4)
    expect(told).to_be_hidden()
    # Another question does not wait for the one before.
    site.page.unroute(HISTOGRAM)
    site.page.get_by_label("Query").fill("-whimbrel nothing")
    site.page.keyboard.press("Enter")
    expect(site.page.locator("#empty")).to_be_visible()
    expect(told).to_contain_text("0 records")
    expect(site.page.locator("[data-waits]")).to_have_count(0)
    assert held


def test_where_a_record_is_from(site: Site) -> None:
    site.send({"message": "godwit", "host": "h1", "service": "mud"}, {"message": "godwit", "host": "h2"})
    site.open("godwit")
    expect(site.lines).to_have_count(2)
    host, service = site.page.locator("#results .host"), site.page.locator("#results .service")
    for width, shown in ((1280, 4), (900, 2), (400, 2)):
        site.page.set_viewport_size({"width": width, "height": 800})
        assert sum(each.is_visible() for each in (*host.all(), *service.all())) == shown
        expect(host.filter(has_text="h2")).to_be_visible()
        expect(service.filter(has_text="mud")).to_be_visible()
    expect(host.first).to_have_attribute("title", "host h2")
