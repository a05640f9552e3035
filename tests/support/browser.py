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


# WCAG 2.2, 1.4.3: 4.5 to 1, or 3 to 1 for large text. Buttons that cannot be pressed are left out, as there.
FAINT = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.matches("button:disabled, script, option")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const color = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(parse(color)), light(behind(element))].sort((x, y) => y - x);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if ((a + 0.05) / (b + 0.05) < (large ? 3 : 4.5)) found.push(element.textContent.slice(0, 30));
  }
  return found;
}"""
"""Returns the texts that cannot be read well."""
UNNAMED = """() => {
  const named = (element) => element.getAttribute("aria-label") || element.getAttribute("aria-labelledby")
    || element.labels?.length || element.textContent.trim();
  const all = "input, select, button, a, nav, article, section, svg:not([aria-hidden]), [role]:not([role=status])";
  return [...document.querySelectorAll(all)].filter((element) => element.checkVisibility() && !named(element))
    .map((element) => element.outerHTML.slice(0, 80));
}"""
"""Returns the controls without a name."""
