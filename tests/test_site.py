"""The documentation as a site: it is built without a warning, whole, and asks nothing of anybody else."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from logagg.cli.main import cli
from logagg.collector.settings import Settings

ROOT = Path(__file__).parents[1]
GROUPS = {"Tutorial", "How to", "Reference", "Explanations"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it, as `make docs` does; a page that is in no group of the navigation is a warning, and so an error."""
    if not importlib.util.find_spec("mkdocs"):
        pytest.skip("mkdocs is not installed (pip install --group docs)")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_each_page_is_there(site: Path) -> None:
    wanted = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").glob("**/*.md")}
    wanted = {path.with_name("index.html") if path.stem == "README" else path for path in wanted}
    assert {path.relative_to(site) for path in site.glob("**/*.html")} >= wanted
    assert not list(site.glob("**/*.py"))


def test_the_navigation_has_the_four_kinds_of_pages() -> None:
    nav = YAML(typ="safe").load(ROOT / "mkdocs.yml")["nav"]
    assert {name for each in nav for name, pages in each.items() if isinstance(pages, list)} == GROUPS


def test_the_reference_is_what_the_program_says(site: Path) -> None:
    settings = (site / "reference-settings.html").read_text()
    assert all(f"<td><code>{name}</code></td>" in settings for name in Settings.model_fields)
    commands = (site / "reference-commands.html").read_text()
    assert all(f'id="logagg-{name}"' in commands for name in cli.commands)
    routes = (site / "reference-http.html").read_text()
    assert {"GET /logs", "POST /ingest", "GET /metrics"} <= set(re.findall(r"<code>([A-Z]+ /[^<]*)</code>", routes))


class References(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"script": "src", "img": "src", "link": "href", "iframe": "src"}
        self.found += [
            value or "" for name, value in attrs if name == names.get(tag) and ("rel", "canonical") not in attrs
        ]


def loaded(page: Path) -> Iterator[str]:
    references = References()
    references.feed(page.read_text())
    yield from references.found


def test_a_reader_of_the_site_asks_nobody_else(site: Path) -> None:
    pages = sorted(set(site.glob("**/*.html")) - {site / "404.html"})  # which does not know where it is shown
    assert not [(page.name, each) for page in pages for each in loaded(page) if re.match(r"(https?:)?//", each)]
    assert not [
        (page.name, each)
        for page in pages
        for each in loaded(page)
        if not (page.parent / each.partition("?")[0]).exists()
    ]
