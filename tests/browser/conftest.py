"""The console of one deployed local cloud, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from local.cloud import Cloud, local_cloud
from local.console import local_console
from tools import chromium

TIMEOUT_MS = 60_000
"""Of an action or an expectation: the machine may be slow."""


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    # Tests call the schedule's function themselves.
    parameters = {"ReconcileEveryMinutes": "60", "UnassignedCustomers": "store"}
    with local_cloud(parameters=parameters) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def address(cloud: Cloud) -> Iterator[str]:
    with local_console(cloud) as address:
        yield address


@contextmanager
def running_browser() -> Iterator[Browser]:
    """A Chromium for the duration of the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.install(), args=list(chromium.ARGUMENTS)
        )
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@dataclass
class Console:
    """The console in a page of the browser."""

    page: Page
    base: str

    def open(self, path: str) -> None:
        """Open one of its pages."""
        self.page.goto(f"{self.base}{path}")

    def check_accessibility(self) -> None:
        """Fail if axe finds a violation, with a light and with a dark page."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            found = Axe().run(self.page).response["violations"]
            assert not found, [(each["id"], each["nodes"][0]["html"]) for each in found]


@pytest.fixture
def console(browser: Browser, address: str) -> Iterator[Console]:
    """A page of the operator, in which no script fails and nothing is loaded from elsewhere."""
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    own, wrong = urlsplit(address).netloc, list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on(
        "request",
        lambda sent: (
            None if urlsplit(sent.url).netloc in ("", own) else wrong.append(f"asks {sent.url}")
        ),
    )
    page.goto(address)
    yield Console(page, address.partition("/?")[0])
    context.close()
    assert wrong == []
