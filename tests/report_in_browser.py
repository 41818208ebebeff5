"""A report in the browser: how it is opened, and scripts that return what a person sees in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.browser import Browser

KEYS = "return [...document.querySelectorAll('#table tbody tr')].map(row => row.dataset.key)"
AXIS = """
  const box = byId('parallel-chart').getBoundingClientRect(), at = report.params.indexOf(arguments[0]);
  const system = charts.get(byId('parallel-chart')).getModel().getComponent('parallel').coordinateSystem;
  return arguments[1].map(value => system.dataToPoint(value, 'dim' + at)).map(([x, y]) => [box.x + x, box.y + y]);
"""
CHOOSE = """
  const one = byId(arguments[0]);
  one.value = arguments[1];
  for (const kind of ['input', 'change']) one.dispatchEvent(new Event(kind, {bubbles: true}));
"""


def opened(browser: Browser, page: Path, width: int = 1280, *, dark: bool = False) -> None:
    browser.open("about:blank")
    browser.look(width, dark=dark)  # the page before would draw itself again for that
    browser.console()
    browser.requests()
    browser.open(page.as_uri())
    browser.wait("return document.documentElement.dataset.drawn")


def seen(browser: Browser, page: Path, width: int = 1280) -> None:
    """As `opened`, for tests that only look: it stays open from one to the next."""
    opening = [page.as_uri(), width]
    if browser.run("return window.onlySeen") != opening:
        opened(browser, page, width)
        browser.run("window.onlySeen = arguments[0]", opening)


def choose(browser: Browser, what: str, value: str) -> None:
    """Enter a text into a field of the page, given by its id."""
    browser.run(CHOOSE, what, value)


def brush(browser: Browser, axis: str, low: int, high: int) -> None:
    """Drag along a parallel axis, around two neighbouring places of it; the chart stays where it is on the screen."""
    one, other = browser.run(AXIS, axis, [low, high])
    beyond = [(b - a) * 0.3 for a, b in zip(one, other, strict=True)]
    browser.drag((one[0] - beyond[0], one[1] - beyond[1]), (other[0] + beyond[0], other[1] + beyond[1]))


def option(browser: Browser, chart: str, path: str) -> Any:
    """A part of what ECharts draws."""
    return browser.run(f"return charts.get(byId('{chart}')).getOption().{path}")
