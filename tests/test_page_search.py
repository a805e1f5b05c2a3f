"""The page, in a browser: searching, filters, the range of time, what a record holds."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Route

    from logagg.tests.browser import Site

pytest_plugins = ["browser"]


def test_a_search_finds_and_marks_what_it_is_for(site: Site) -> None:
    site.send(
        {"message": "sparrow has landed", "service": "birds"}, {"message": "sparrow has left", "service": "birds"}
    )
    site.open()
    site.page.get_by_label("Query").fill("sparrow -left")
    site.page.keyboard.press("Enter")
    expect(site.lines).to_have_count(1)
    expect(site.lines).to_contain_text("sparrow has landed")
    expect(site.page.locator("#results mark")).to_have_text("sparrow")
    expect(site.page).to_have_title("sparrow -left - logagg")
    assert site.asked("q") == "sparrow -left"


def test_more_records_come_as_one_scrolls_each_of_them_once(site: Site) -> None:
    site.send(*({"message": f"heron {n}", "timestamp": site.ago(n)} for n in range(600)))
    site.open("heron")
    for loaded in (49, 249, 449):
        expect(site.lines.nth(loaded)).to_be_attached()
        site.lines.last.scroll_into_view_if_needed()
    expect(site.lines).to_have_count(600)
    texts = site.page.locator("#results .message").all_text_contents()
    assert texts == [f"heron {n}" for n in range(600)]


def test_records_that_come_by_scrolling_leave_the_focus_where_it_is(site: Site) -> None:
    site.send(*({"message": f"egret {n}", "timestamp": site.ago(n)} for n in range(60)))
    held: list[Route] = []
    site.page.route(re.compile(r"/logs\?.*cursor="), lambda route: held.append(route))  # Playwright writes to it
    with site.page.expect_request(re.compile(r"/logs\?.*cursor=")):
        site.open("egret")
    site.page.keyboard.press("/")
    site.expect_focus(site.page.get_by_label("Query"))
    held[0].continue_()
    expect(site.lines).to_have_count(60)
    site.expect_focus(site.page.get_by_label("Query"))


def test_a_click_filters_and_another_takes_it_back(site: Site) -> None:
    site.send(
        {"message": "wren", "level": "ERROR", "service": "a b", "host": "h1"},
        {"message": "wren", "level": "WARNING", "service": "a b", "host": "h2"},
        {"message": "wren", "level": "INFO", "service": "c", "host": "h2"},
        {"message": "wren", "level": "INFO"},
    )
    site.open("wren")
    expect(site.lines).to_have_count(4)
    site.facet("level", "ERROR").locator(".value").click()
    expect(site.lines).to_have_count(1)
    expect(site.facet("level", "INFO")).to_contain_text("2")  # what could be wanted too
    site.facet("level", "WARNING").locator(".value").click()
    expect(site.lines).to_have_count(2)
    assert site.asked("q") == "wren (level=ERROR or level=WARNING)"
    site.page.go_back()
    site.page.go_back()
    expect(site.lines).to_have_count(4)
    site.facet("host", "h2").get_by_role("button", name="Without host h2").click()
    expect(site.lines).to_have_count(2)
    site.facet("service", "a b").locator(".value").click()
    expect(site.lines).to_have_count(1)
    assert site.asked("q") == 'wren host!=h2 service="a b"'
    site.facet("service", "a b").locator(".value").click()
    expect(site.lines).to_have_count(2)
    site.facet("service", "(none)").locator(".value").click()
    expect(site.lines).to_have_count(1)
    assert site.asked("q") == "wren host!=h2 -service:*"


def test_fields_of_a_record_are_clicked_into_the_query(site: Site) -> None:
    site.send(
        {"message": "finch", "user": {"name": 'ann "*" \\ bee'}, "level": "INFO", "tags": ["x", "y"]},
        {"message": "finch", "user": {"name": "bob"}, "level.": 1, "took": 1.50},
    )
    site.open("finch")
    expect(site.lines).to_have_count(2)
    line = site.lines.filter(has=site.page.locator("xpath=.")).last
    line.locator("summary").click()
    line.get_by_role("button", name="Only with user.name").click()
    expect(site.lines).to_have_count(1)
    site.lines.locator("summary").click()
    expect(site.lines).to_contain_text('ann "*" \\ bee')
    site.lines.get_by_role("button", name="Without tags x").click()
    expect(site.page.locator("#empty")).to_contain_text("No record matches")


def test_what_finds_nothing_says_which_column_a_misspelt_field_may_have_meant(site: Site) -> None:
    hint = "sevice is no column, so an attribute was looked for; did you mean service?"
    site.send({"message": "curlew", "service": "birds"})
    for since in ("24h", "all"):
        site.open("curlew sevice:birds", since=since)
        expect(site.page.locator("#empty")).to_contain_text("No record matches")
        expect(site.page.locator("#empty")).to_contain_text(hint)
    site.open("sevice:birds", view="patterns")
    expect(site.page.locator("#status")).to_contain_text(hint)
    site.open("sevice:birds", view="live")
    expect(site.page.locator("#live-told")).to_contain_text(hint)
    site.send({"message": "here after all", "sevice": "birds"})
    expect(site.page.locator("#live-told")).to_have_text("1 record. The last 1000 are kept.")
    site.open("curlew service:fish")
    expect(site.page.locator("#empty")).to_have_text("No record matches.")


def test_a_range_is_dragged_over_the_histogram(site: Site) -> None:
    site.send(*({"message": f"stork {n}", "timestamp": site.ago(n * 600)} for n in range(100)))
    site.open("stork")
    expect(site.page.locator("#told")).to_contain_text("100 records")
    box = site.page.locator("#histogram").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    site.page.mouse.move(box["x"] + box["width"] * 0.6, middle)
    site.page.mouse.down()
    site.page.mouse.move(box["x"] + box["width"] * 0.8, middle, steps=4)
    told = site.page.locator("#told").text_content() or ""
    found = re.search(r" to .*: (\d+) records (\d+) INFO", told)
    assert found
    site.page.mouse.up()
    expect(site.page.locator("#told")).to_contain_text(f"{found[1]} records,")
    expect(site.lines).to_have_count(int(found[1]))
    assert site.asked("start")
    assert site.asked("end")
    expect(site.page.get_by_label("From", exact=True)).to_be_visible()
    site.page.get_by_role("button", name="Zoom out").click()
    expect(site.page.locator("#told")).not_to_contain_text(f"{found[1]} records,")
    site.page.get_by_label("Time range").select_option("24h")
    expect(site.page.locator("#told")).to_contain_text("100 records")
    assert site.asked("start") is None


def test_a_range_is_chosen_by_keys(site: Site) -> None:
    site.send(*({"message": "crane", "timestamp": site.ago(n * 600)} for n in range(40)))
    site.open("crane")
    expect(site.page.locator("#told")).to_contain_text("40 records")
    site.page.locator("#histogram").focus()
    chart = site.page.get_by_role("slider", name="Range of time")
    for _ in range(12):
        site.page.keyboard.press("Shift+ArrowLeft")
    text = chart.get_attribute("aria-valuetext") or ""
    found = re.search(r"to .*: (\d+) records, (\d+) INFO", text)
    assert found
    site.page.keyboard.press("Enter")
    expect(site.page.locator("#told")).to_contain_text(f"{found[1]} records,")
    assert site.asked("start")


def test_a_range_is_typed_in_the_zone_that_is_shown(site: Site) -> None:
    site.send(
        {"message": "ibis old", "timestamp": "2020-02-02T11:30:00Z"}, {"message": "ibis", "timestamp": site.ago(60)}
    )
    site.open("ibis")
    expect(site.lines).to_have_count(1)
    site.page.get_by_label("Time range").select_option("custom")
    site.page.get_by_label("From", exact=True).fill("2020-02-02T12:00:00")
    site.page.get_by_label("to", exact=True).fill("2020-02-02T13:00:00")
    expect(site.lines).to_contain_text(["2020-02-02 12:30:00.000"])  # a list: one, and this
    site.page.get_by_role("button", name="Local").click()
    expect(site.lines).to_contain_text("2020-02-02 11:30:00.000")
    expect(site.page.get_by_label("From", exact=True)).to_have_value("2020-02-02T11:00")


def test_where_the_last_day_has_nothing_the_page_goes_further_back(site: Site) -> None:
    site.send({"message": "dodo", "timestamp": "2019-05-05T05:05:05Z"})
    site.open("dodo")
    expect(site.lines).to_have_count(1)
    assert site.asked("since") == "all"
    site.open("dodo", since="1h")
    expect(site.page.locator("#empty")).to_contain_text("The newest that matches is of 2019-05-05 07:05:05")
    site.page.get_by_role("button", name="Search all time").click()
    expect(site.lines).to_have_count(1)


def test_a_record_shows_all_it_holds_and_gives_it_away_exactly(site: Site) -> None:
    site.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    attributes = {"big": 9007199254740993, "half": 0.5, "flag": True, "none": None, "deep": {"er": [1, {"x": 2}]}}
    record = {"message": "owl\n  second line", "service": "night", "host": "tree", "level": "CRITICAL", **attributes}
    site.send(record)
    site.open("owl")
    site.lines.locator("summary").click()
    inside = site.lines.locator(".inside")
    expect(inside.locator(".whole")).to_have_text("owl\n  second line")
    for text in ("big", "9007199254740993", "half", "flag", "true", "deep.er", "night", "tree", "received_at"):
        expect(inside.locator("dl")).to_contain_text(text)
    inside.get_by_role("button", name="Copy JSON").click()
    expect(inside.get_by_role("status")).to_have_text("Copied.")
    copied = json.loads(site.page.evaluate("navigator.clipboard.readText()"))
    assert {name: copied["attributes"].get(name) for name in attributes} == attributes
    assert (copied["message"], copied["level"]) == (record["message"], "CRITICAL")


def test_a_record_without_attributes_shows_no_row_for_them(site: Site) -> None:
    site.send({"message": "serin", "timestamp": site.ago(1)}, {"message": "serin", "": 1, "none": {}})
    site.open("serin")
    for line, rows in ((1, 4), (0, 6)):  # level, timestamp, received_at, id; and two of attributes
        site.lines.nth(line).locator("summary").click()
        expect(site.lines.nth(line).locator("dl > div")).to_have_count(rows + 1)  # source: our address


def test_context_is_what_the_same_source_said_before_and_after(site: Site) -> None:
    for n in range(30):
        site.send({"message": f"gull {n}", "service": "sea", "host": "cliff", "timestamp": site.ago(100 - n)})
    site.send({"message": "gull from elsewhere", "service": "land", "host": "cliff", "timestamp": site.ago(85.5)})
    site.open('"gull 15"')
    expect(site.lines).to_have_count(1)
    site.lines.locator("summary").click()
    expect(site.page.locator(".to-context").first).to_be_visible()
    site.page.keyboard.press("c")
    around = site.lines.locator(".context .message")
    expect(around).to_have_text([f"gull {n}" for n in range(5, 26)])
    expect(site.lines.locator(".context [aria-current] .message")).to_have_text("gull 15")
    site.lines.locator(".context").get_by_role("button", name="More").click()
    expect(around).to_have_text([f"gull {n}" for n in range(30)])


def test_an_address_can_be_shared(site: Site) -> None:
    site.send(*({"message": f"swift {n}", "service": "sky", "timestamp": site.ago(n)} for n in range(80)))
    site.open("swift", since="4h")
    site.lines.nth(70).locator("summary").click()
    expect(site.page).to_have_url(re.compile("record="))
    url = site.page.url
    site.page.goto("about:blank")
    site.page.goto(url)
    expect(site.page.get_by_label("Query")).to_have_value("swift")
    expect(site.page.get_by_label("Time range")).to_have_value("4h")
    expect(site.page.locator("#linked")).to_contain_text("swift 70")  # not among the first 50
    site.lines.nth(3).locator("summary").click()
    expect(site.page.locator("main details[open]")).to_have_count(1)
    site.page.reload()
    expect(site.lines.nth(3).locator(".whole")).to_have_text("swift 3")
    assert site.asked("record") == site.lines.nth(3).get_attribute("data-id")
