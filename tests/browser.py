"""A real browser on the page of a real daemon: one of each for a file of tests.

Every test has a page of its own, and fails when that wrote an error to its console, as it does for whatever the
Content-Security-Policy forbids. Playwright has an event loop running in this thread, so the tests of a file that uses
this are not asynchronous.
"""

import asyncio
import json
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from subprocess import Popen
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

if TYPE_CHECKING:
    from logagg.tests.processes import free_port, process, wait_ready
else:
    from processes import free_port, process, wait_ready

NOW = datetime.now(UTC)
PATIENCE = 30_000  # milliseconds
expect.set_options(timeout=PATIENCE)


@contextmanager
def database(postgres_url: str) -> Iterator[str]:
    """Make an empty database; its address."""
    name = f"logagg_page_{uuid4().hex[:12]}"

    async def statement(text: str) -> None:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(text)
        await connection.close()

    def execute(text: str) -> None:
        with ThreadPoolExecutor(1) as thread:  # Playwright's loop may be running in this one
            thread.submit(asyncio.run, statement(text)).result()

    execute(f"create database {name}")
    try:
        yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    finally:
        execute(f"drop database {name} with (force)")


@contextmanager
def running(database_url: str, port: int) -> Iterator[Popen[str]]:
    """Run a daemon on this database, with its page at this port; its process."""
    with process(database_url=database_url, http_listen=f"127.0.0.1:{port}") as daemon:
        wait_ready(port)
        yield daemon


@contextmanager
def service(postgres_url: str) -> Iterator[str]:
    """Run a daemon with an empty store; its address."""
    port = free_port()
    with database(postgres_url) as url, running(url, port):
        yield f"http://127.0.0.1:{port}"


class Site:
    """The page of a daemon, in a browser window."""

    def __init__(self, url: str, page: Page) -> None:
        self.url = url
        self.page = page
        #: What stood in the console as an error; a test that means to see one takes it out.
        self.errors: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"dialog {dialog.message}"))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    @staticmethod
    def ago(seconds: float) -> str:
        """Return the time so long before the tests began."""
        return (NOW - timedelta(seconds=seconds)).isoformat()

    def send(self, *records: dict[str, Any]) -> None:
        """Have the daemon store records; those without a timestamp are of now."""
        body = json.dumps(records).encode()
        with urllib.request.urlopen(f"{self.url}/ingest", body) as answer:  # noqa: S310  # the address is ours
            assert answer.status == 200

    def open(self, q: str | None = None, **parameters: str) -> None:
        """Open the page with these parameters."""
        self.page.bring_to_front()  # keys go to the window that has the focus
        asked = parameters | ({} if q is None else {"q": q})
        self.page.goto(f"{self.url}/?{urllib.parse.urlencode(asked)}")

    def expect_refusals(self) -> None:
        """Say that the browser is right to note in its console that an answer was a refusal, or none came."""
        self.errors[:] = [text for text in self.errors if not text.startswith("Failed to load resource")]

    def asked(self, name: str) -> str | None:
        """Return a parameter of the address."""
        values = urllib.parse.parse_qs(urlsplit(self.page.url).query).get(name)
        return values[0] if values else None

    def expect_focus(self, locator: Locator) -> None:
        """Wait until this element is the one that keys go to, whether the window has the focus of its screen or not."""
        self.page.wait_for_function("(node) => document.activeElement === node", arg=locator.element_handle())

    @property
    def lines(self) -> Locator:
        """The lines of the records found."""
        return self.page.locator("#results > li")

    def facet(self, field: str, value: str) -> Locator:
        """Return the line of a value among the filters."""
        pattern = re.compile(rf"^\s*{re.escape(value)}\s*[\d,]+")
        return self.page.locator(f"#facet-{field} li").filter(has_text=pattern)


@pytest.fixture(scope="module")
def site_url(postgres_url: str) -> Iterator[str]:
    """The address of a daemon."""
    with service(postgres_url) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without windows."""
    program = shutil.which("chromium")
    if not program:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def window(url: str, browser: Browser) -> Iterator[Site]:
    """Open the page in a window of 1280 by 800, as a new visitor has it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, timezone_id="Europe/Berlin")
    context.set_default_timeout(PATIENCE)
    site = Site(url, context.new_page())
    yield site
    context.close()
    assert site.errors == []


@pytest.fixture
def site(site_url: str, browser: Browser) -> Iterator[Site]:
    """The page of the daemon of this file; its records are those of all tests."""
    with window(site_url, browser) as site:
        yield site


@pytest.fixture
def new_site(postgres_url: str, browser: Browser) -> Iterator[Site]:
    """The page of a daemon of its own, without records."""
    with service(postgres_url) as url, window(url, browser) as site:
        yield site


Run = Callable[[], AbstractContextManager[Popen[str]]]


@pytest.fixture
def absent_site(postgres_url: str, browser: Browser) -> Iterator[tuple[Site, Run]]:
    """The page of a daemon that is not there yet, and what runs it: again and again, with the same store."""
    port = free_port()
    with database(postgres_url) as url, window(f"http://127.0.0.1:{port}", browser) as site:
        yield site, lambda: running(url, port)


@pytest.fixture
def addresses(postgres_url: str) -> Iterator[tuple[str, str]]:
    """The address of a daemon of its own, and that of its database."""
    port = free_port()
    with database(postgres_url) as url, running(url, port):
        yield f"http://127.0.0.1:{port}", url
