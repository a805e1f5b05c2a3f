"""The page of a daemon that wants tokens: the browser asks for one before it shows anything."""

from __future__ import annotations

import subprocess
import sys

from playwright.sync_api import Browser, Page, expect

pytest_plugins = ["browser"]


def token(*args: str) -> str:
    """Run `logagg token`; return the last word that it says."""
    command = [sys.executable, "-m", "logagg.cli", "token", *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def wait_closed(page: Page, address: str) -> None:
    """Return once the daemon refuses what comes without a token that it knows."""
    while page.request.get(address).status != 401:
        pass


def test_the_browser_has_the_token_as_password_and_the_page_asks_when_it_is_revoked(
    addresses: tuple[str, str], browser: Browser
) -> None:
    address, url = addresses
    first, second = [token("create", "--name", name, "--scope", "query", "--database-url", url) for name in ("a", "b")]
    context = browser.new_context(http_credentials={"username": "anybody", "password": first})
    page, stranger = context.new_page(), browser.new_page()
    wait_closed(stranger, address)
    page.goto(f"{address}/?q=knot")
    expect(page.locator("#told")).to_contain_text("0 records")
    expect(page.locator("#login")).to_be_hidden()
    token("revoke", "a", "--database-url", url)
    wait_closed(page, address)
    page.keyboard.press("r")
    page.get_by_role("textbox", name="Token").fill(second)
    page.keyboard.press("Enter")
    expect(page.locator("#login")).to_be_hidden()
    expect(page.locator("#told")).to_contain_text("0 records")
    stranger.close()
    context.close()
