"""The pages for people, as they are served: whole without a network, and nothing inline."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon

PAGES = ["/", "/docs", "/redoc"]
ASSETS = Path(__file__).parents[1] / "query" / "assets"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """What a page refers to, what stands inline in it, and whether its tags and labels fit."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: set[str] = set()
        self.inline: list[str] = []
        self.inputs: set[str] = set()
        self.labelled: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.references |= {given[name] for name in ("src", "href", "action") if name in given}
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        if tag in {"input", "select", "textarea"}:
            self.inputs.add(given["id"])
        if tag == "label":
            self.labelled.add(given["for"])
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


async def page(daemon: RunningDaemon, path: str) -> Page:
    async with daemon.http.get(path, headers=BROWSER) as answer:
        assert (answer.status, answer.content_type, answer.charset) == (200, "text/html", "utf-8")
        return Page(await answer.text())


async def test_a_page_needs_nothing_but_the_daemon(daemon: RunningDaemon) -> None:
    for path in PAGES:
        found = await page(daemon, path)
        assert found.references
        for reference in found.references:
            assert re.match(r"[/#](?!/)", reference), reference
            async with daemon.http.get(reference, headers=BROWSER) as answer:
                assert answer.status == 200
                assert answer.content_type == TYPES.get(Path(reference).suffix, answer.content_type)


async def test_a_page_allows_nothing_inline_and_nothing_from_elsewhere(daemon: RunningDaemon) -> None:
    for path in PAGES:
        async with daemon.http.get(path, headers=BROWSER) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        rules = {name: sources for name, *sources in (rule.split() for rule in policy.split(";"))}
        assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == ["'none'"]
        assert rules.pop("require-trusted-types-for") == ["'script'"]  # so nothing makes markup of text
        assert {source for sources in rules.values() for source in sources} <= {"'none'", "'self'"}
        found = await page(daemon, path)
        assert found.inline == []
        assert found.inputs <= found.labelled


@pytest.mark.parametrize("file", sorted(ASSETS.iterdir()), ids=lambda path: path.name)
def test_assets_load_nothing_and_make_no_markup_of_text(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(|//cdn", text)
    assert not re.search(r"(inner|outer)HTML|insertAdjacent|document\.write|\beval\b|new Function|\.style\b", text)
    assert text.endswith("\n")


async def test_a_page_seen_before_is_not_sent_again(daemon: RunningDaemon) -> None:
    async with daemon.http.get("/assets/app.js") as answer:
        tag = answer.headers["ETag"]
    async with daemon.http.get("/assets/app.js", headers={"If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with daemon.http.get("/assets/app.js", headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


async def test_only_assets_are_served(daemon: RunningDaemon) -> None:
    for path in ("/assets/", "/assets/nothing.js", "/assets/../http.py", "/assets/%2e%2e/http.py"):
        async with daemon.http.get(path) as answer:
            assert answer.status == 404
