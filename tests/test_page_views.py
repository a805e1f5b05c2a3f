"""The page, in a browser: live, patterns, keys, colours, refusals; and what a record tries to do to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Route, expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logagg.tests.browser import Site

pytest_plugins = ["browser"]

EVIL = '"><img src=x onerror="window.owned=1"><script>window.owned=1</script>{{7*7}}javascript:owned=1//\u202e\u001b[2J'


@pytest.fixture
def live(site: Site) -> Iterator[Site]:
    """The page, whose connection to the tail ends with it."""
    yield site
    site.page.goto("about:blank")


def test_records_appear_while_one_looks_on(live: Site) -> None:
    live.send({"message": "plover before", "service": "here"})
    live.open("plover service=here", view="live")
    lines = live.page.locator("#tail > li")
    expect(lines).to_have_count(1)
    live.send({"message": "plover 1", "service": "here"}, {"message": "plover", "service": "elsewhere"})
    expect(lines).to_have_count(2)
    expect(lines.last).to_contain_text("plover 1")
    live.page.keyboard.press("Space")
    expect(live.page.get_by_role("status")).to_have_text("Paused.")
    live.send({"message": "plover 2", "service": "here"})
    expect(live.page.locator("#live-told")).to_contain_text("1 more waiting")
    expect(lines).to_have_count(2)
    live.page.get_by_role("button", name="Resume").click()
    expect(lines.last).to_contain_text("plover 2")
    lines.last.locator("summary").click()
    expect(lines.last.locator("dl")).to_contain_text("here")


def test_a_burst_leaves_the_last_records_and_the_end_in_sight(live: Site) -> None:
    live.open("flock", view="live")
    expect(live.page.get_by_role("status")).to_have_text("Following.")
    live.send(*({"message": f"flock {n}"} for n in range(5000)))
    lines = live.page.locator("#tail > li")
    expect(lines.last).to_contain_text("flock 4999")
    expect(lines).to_have_count(1000)
    expect(lines.last).to_be_in_viewport()
    live.page.locator("#tail").evaluate("(node) => { node.scrollTop = 0 }")
    live.send({"message": "flock last"})
    expect(lines.last).to_contain_text("flock last")
    expect(lines.last).not_to_be_in_viewport()
    live.page.get_by_role("button", name="To the end").click()
    expect(lines.last).to_be_in_viewport()


def test_patterns_lead_to_their_records(site: Site) -> None:
    site.send(*({"message": f'Accepted  kite {n}* for "user" {n}', "timestamp": site.ago(n)} for n in range(40)))
    site.send({"message": "kite refused", "level": "ERROR", "service": "sky"})
    site.open("kite", view="patterns")
    items = site.page.locator("#templates > li")
    expect(items).to_have_count(2)
    expect(items.first).to_contain_text("40")
    expect(items.last).to_contain_text("kite refused")
    expect(items.last).to_contain_text("sky")
    items.first.get_by_role("link").click()
    expect(site.page.locator("#told")).to_contain_text("40 records")
    expect(site.lines).to_have_count(40)


def test_a_pattern_has_the_level_that_all_its_records_have_else_how_many_have_each(site: Site) -> None:
    site.send(*({"message": f"smew {n} dived", "level": "ERROR" if n % 3 == 0 else "INFO"} for n in range(12)))
    site.send(*({"message": f"smew {n} drowned", "level": "ERROR"} for n in range(5)))
    site.open("smew", view="patterns")
    dived, drowned = (site.page.locator("#templates > li").filter(has_text=text) for text in ("dived", "drowned"))
    expect(dived.locator(".count")).to_have_text("12")
    expect(dived.locator(".level")).to_have_text(["", "4 ERROR", "8 INFO"])
    expect(dived).to_have_class("")
    expect(drowned.locator(".level")).to_have_text(["ERROR"])
    expect(drowned).to_have_class("level-ERROR")


def test_all_of_it_by_keys(live: Site) -> None:
    live.send(*({"message": f"lark {n}", "timestamp": live.ago(n)} for n in range(3)))
    live.open()
    expect(live.lines).not_to_have_count(0)  # before that nobody listens to keys
    keys = live.page.keyboard
    keys.press("/")
    live.expect_focus(live.page.get_by_label("Query"))
    keys.type("lark")
    expect(live.page.get_by_label("Query")).to_have_value("lark")
    keys.press("Enter")
    expect(live.lines).to_have_count(3)
    expect(live.page.locator("[aria-busy]")).to_have_count(0)
    keys.press("Escape")
    for key in ("j", "j", "k"):
        keys.press(key)
    keys.press("Enter")
    expect(live.lines.nth(1).locator(".whole")).to_have_text("lark 1")
    keys.press("Escape")
    expect(live.page.locator("details[open]:not(#filters)")).to_have_count(0)
    keys.press("?")
    expect(live.page.get_by_role("dialog")).to_contain_text("to the next record")
    keys.press("Escape")
    keys.press("p")
    expect(live.page.locator("#templates > li")).to_have_count(1)
    keys.press("t")
    expect(live.page.locator("#tail > li")).to_have_count(3)
    keys.press("t")
    expect(live.lines).to_have_count(3)
    keys.press("h")
    live.expect_focus(live.page.get_by_role("slider"))
    keys.press("u")
    expect(live.page.get_by_role("button", name="UTC")).to_be_visible()


def test_a_wrong_query_is_shown_with_its_place(site: Site) -> None:
    site.open()
    query = site.page.get_by_label("Query")
    query.fill("x😀 level>=loud x")
    query.press("Enter")
    expect(site.page.get_by_role("alert")).to_contain_text(re.compile(r"expected one of .*\n +x😀 level>=loud x\n +\^"))
    site.expect_focus(query)
    expect(query).to_have_attribute("aria-invalid", "true")
    assert query.evaluate("(node) => node.selectionStart") == len("x😀 level>=".encode("utf-16-le")) // 2
    query.fill("level>=error")
    query.press("Enter")
    expect(site.page.locator("#problem")).to_be_hidden()
    site.expect_refusals()


def test_a_panel_that_fails_says_so_and_tries_again(site: Site) -> None:
    site.send({"message": "tern"})
    site.page.route("**/logs/histogram?*", lambda route: route.abort())
    site.open("tern")
    expect(site.lines).to_have_count(1)
    failed = site.page.locator("#over-time .failed")
    expect(failed).to_contain_text("The service does not answer.")
    site.page.unroute("**/logs/histogram?*")
    failed.get_by_role("button", name="Try again").click()
    expect(site.page.locator("#told")).to_contain_text("1 record,")
    expect(failed).to_have_count(0)
    site.expect_refusals()


def test_a_token_is_asked_for_once_and_kept(site: Site) -> None:
    site.send({"message": "knot"})

    def guard(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"detail": "a token is wanted"})

    site.page.route(re.compile("/logs[?/]"), guard)
    site.open("knot")
    site.page.get_by_role("textbox", name="Token").fill("secret")
    site.page.keyboard.press("Enter")
    expect(site.lines).to_have_count(1)
    expect(site.page.locator("#told")).to_contain_text("1 record,")
    site.page.reload()
    expect(site.lines).to_have_count(1)
    site.expect_refusals()


def test_nothing_in_a_record_or_an_address_acts_on_the_page(live: Site) -> None:
    texts = ("message", "service", "host", "environment", "source", "trace_id", "span_id", "key")
    record: dict[str, Any] = dict.fromkeys(texts, f"{EVIL} magpie")
    live.send(record | {EVIL: {EVIL: [EVIL, {EVIL: EVIL}]}, "level": "ERROR"})
    for view in ("", "patterns", "live"):
        live.open("magpie", view=view)
        expect(live.page.locator("main > section:not([hidden]) > ol > li")).to_have_count(1)
        expect(live.page.locator("#facet-service li")).to_have_count(1)
        expect(live.page.locator("#facet-service li")).to_contain_text("\\u202e\\u001b[2J magpie")
    live.open("magpie")
    live.lines.locator("summary").click()
    expect(live.page.locator(".to-context").first).to_be_visible()
    live.page.keyboard.press("c")
    expect(live.lines.locator(".context li")).to_have_count(1)
    live.lines.get_by_role("button", name="Copy JSON").first.click()
    live.lines.get_by_role("button", name="Only with service").first.click()
    expect(live.lines).to_have_count(1)
    live.facet("service", "x").page.locator("#facet-service .value").click()
    expect(live.page.get_by_label("Query")).to_have_value("magpie")
    live.open(EVIL, view=EVIL, since=EVIL, start=EVIL, end=EVIL, record=EVIL, fresh=EVIL)
    expect(live.page.get_by_label("Query")).to_have_value(EVIL)
    expect(live.page.locator(".failed, #problem:not([hidden])").first).to_be_visible()
    assert live.page.evaluate("window.owned") is None
    assert live.page.locator("img, script:not([src])").count() == 0
    live.expect_refusals()


def test_an_empty_store_says_how_to_send_and_shows_what_comes(new_site: Site) -> None:
    new_site.open()
    expect(new_site.page.locator("#empty")).to_contain_text(f"curl {new_site.url}/ingest -d")
    new_site.page.locator("#empty pre").first.evaluate("(node) => getSelection().selectAllChildren(node)")
    for _ in range(2):  # a second question comes after the first was answered
        with new_site.page.expect_response(re.compile(r"/logs\?")):
            pass
    assert "/ingest -d" in new_site.page.evaluate("getSelection().toString()")  # somebody is about to copy it
    new_site.send({"message": "hello"})
    expect(new_site.lines).to_contain_text("hello")
    expect(new_site.page.locator("#empty")).to_be_hidden()


def test_it_is_light_or_dark_as_the_system_or_the_person_wants(site: Site) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    site.page.emulate_media(color_scheme="light")
    site.open()
    light = site.page.evaluate(ground)
    site.page.emulate_media(color_scheme="dark")
    dark = site.page.evaluate(ground)
    assert light != dark
    site.page.get_by_role("button", name="Colours: of the system").click()
    site.page.get_by_role("button", name="Colours: dark").click()
    assert site.page.evaluate(ground) == light
    site.page.reload()
    assert site.page.evaluate(ground) == light
    expect(site.page.get_by_role("button", name="Colours: light")).to_be_visible()


def test_every_control_has_a_name_and_the_page_its_landmarks(live: Site) -> None:
    live.send({"message": "rook", "service": "tower", "trace_id": "5b8aa5a2d2c872e8321cf37308d69df2", "a": {"b": 1}})
    for view in ("", "patterns", "live"):
        live.open("rook", view=view)
        expect(live.page.locator("main > section:not([hidden]) > ol > li")).to_have_count(1)
        if not view:
            live.lines.locator("summary").click()
        tree = live.page.context.new_cdp_session(live.page).send("Accessibility.getFullAXTree")
        nodes = [
            (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree["nodes"] if "role" in node
        ]
        roles = {role for role, _ in nodes}
        assert {"banner", "main", "navigation", "search", "complementary", "status"} <= roles
        controls = {"button", "link", "searchbox", "textbox", "combobox", "slider", "DisclosureTriangle", "list"}
        assert [role for role, name in nodes if role in controls - {"list"} and not name.strip()] == []
        assert len(controls & roles) >= 4


def test_on_a_small_screen_nothing_stands_over_the_edge(site: Site) -> None:
    site.send({"message": "auk " + "x" * 300, "service": "s" * 100, "host": "h" * 100, "key" * 40: "v" * 300})
    site.page.set_viewport_size({"width": 400, "height": 800})
    for view in ("", "patterns"):
        site.open("auk", view=view)
        expect(site.page.locator("main > section:not([hidden]) > ol > li")).to_have_count(1)
        site.page.get_by_text("Filters", exact=True).click()
        expect(site.page.locator("#facet-service li")).to_have_count(1)
        if not view:
            site.lines.locator("summary").click()
        assert site.page.evaluate("document.documentElement.scrollWidth") <= 400
