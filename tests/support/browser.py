"""A headless Chromium for tests of the report, and a page that records all it asks for; not collected by pytest."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@dataclass
class Opened:
    """A page in the browser, what it said, and what it asked for beside its own file."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, report: Path, fragment: str = "") -> None:
        """Open the report; returns when the explorer is there, if scripts run."""
        self.page.goto(report.as_uri() + fragment)
        if self.page.evaluate("matchMedia('(scripting: enabled)').matches"):
            self.page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)

    def shown_user(self) -> str:
        """Return the id of the user on show."""
        return str(self.page.inner_text("#user .case-head .muted bdi"))


def chromium() -> str:
    """Return the path of a Chromium; skips the test without one, or fails it where MSR_REQUIRE_BROWSER is set."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        (pytest.fail if os.environ.get("MSR_REQUIRE_BROWSER") else pytest.skip)(f"none of {', '.join(_NAMES)} is here")
    return str(found)


@contextmanager
def launched(profile: Path) -> Iterator[Any]:
    """Start the browser with a profile of its own under ``profile``."""
    path = chromium()
    api = pytest.importorskip("playwright.sync_api") if not os.environ.get("MSR_REQUIRE_BROWSER") else _playwright()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=_FLAGS, env={**os.environ, "HOME": str(profile)}, timeout=120_000
        )
        yield browser
        browser.close()


def _playwright() -> Any:
    import playwright.sync_api

    return playwright.sync_api


@contextmanager
def opened(browser: Any, **settings: Any) -> Iterator[Opened]:
    """Yield an empty page; every request that is no file and no data is recorded and refused."""
    context = browser.new_context(**settings)
    made = Opened(context.new_page())

    def judge(route: Any) -> None:
        made.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()

    context.route("**/*", judge)
    made.page.on("console", lambda message: made.errors.append(f"{message.type}: {message.text}"))
    made.page.on("pageerror", lambda error: made.errors.append(str(error)))
    yield made
    context.close()
