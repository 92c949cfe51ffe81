"""The built book as readers see it: every page in Chromium, offline, light on a wide screen and dark on a phone.

`nox -s browser` runs these tests in an environment of their own, on the book that `nox -s book` has built. With the
variable LOOKS=all every page is looked at in all four ways.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from built import HTML, LISTED
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

NAMES = [*LISTED, "search", "genindex"]
WIDE, PHONE = 1280, 390
LOOKS = [(WIDE, "light"), (PHONE, "dark")]
if os.environ.get("LOOKS") == "all":
    LOOKS += [(WIDE, "dark"), (PHONE, "light")]
BROKEN_IMAGES = "[...document.images].filter((e) => e.complete && !e.naturalWidth).map((e) => e.src)"
# Boxes that stand out of the page to the right, unless something around them scrolls or cuts them
TOO_WIDE = """() => {
    const shows = (e) => getComputedStyle(e).overflowX === "visible";
    const held = (e) => !e.matches("main") && (!shows(e) || held(e.parentElement));
    const out = (e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
    return [...document.querySelectorAll("article *")].filter((e) => out(e) && !held(e.parentElement))
        .map((e) => e.outerHTML.slice(0, 200));
}"""
# Marks what has the focus; false once the focus has left the page or come round
MARK = """() => {
    const focused = document.activeElement;
    if (focused === document.body || focused.dataset.reached) return false;
    focused.dataset.reached = "yes";
    return true;
}"""
NOT_REACHED = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
    .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled && e.tabIndex >= 0)
    .filter((e) => e.type !== "radio" || e.checked)  // arrow keys go through the others of a group
    .filter((e) => e.getClientRects().length && !e.dataset.reached).map((e) => e.outerHTML)"""


@dataclass
class Opened:
    """A page in the browser, and what has gone wrong on it."""

    page: Page
    problems: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Collects errors in the console, requests that fail, and those that go elsewhere than to the disk."""
        self.page.on("console", lambda line: self.problems.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("request", lambda request: self.problems.extend(elsewhere(request.url)))

    def go(self, name: str) -> None:
        """Opens a page and waits until its formulas are set."""
        self.page.goto((HTML / f"{name}.html").as_uri())
        self.page.evaluate("() => window.MathJax?.startup?.promise")


def elsewhere(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:", "blob:")) else [f"asked for {url[:200]}"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=os.environ["CHROMIUM"])


def context(browser: Browser, width: int, scheme: str) -> BrowserContext:
    return browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)


@pytest.fixture(
    scope="module", params=[(*look, name) for look in LOOKS for name in NAMES], ids=lambda p: "-".join(map(str, p))
)
def opened(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """A page in one of its looks, shared by the tests of it."""
    width, scheme, name = request.param
    with context(browser, width, scheme) as look:
        opened = Opened(look.new_page())
        opened.watch()
        opened.go(name)
        assert opened.page.evaluate("document.documentElement.dataset.theme") == scheme
        yield opened


@pytest.fixture
def wide(browser: Browser) -> Iterator[Opened]:
    """An empty tab on a wide screen."""
    with context(browser, WIDE, "light") as look:
        opened = Opened(look.new_page())
        opened.watch()
        yield opened


def test_nothing_fails_and_nothing_comes_from_elsewhere(opened: Opened) -> None:
    assert opened.problems == []
    assert opened.page.evaluate(BROKEN_IMAGES) == []


def test_formulas_are_set(opened: Opened) -> None:
    formulas = opened.page.locator(".math")
    assert formulas.count() == formulas.filter(has=opened.page.locator("mjx-container svg")).count()
    assert opened.page.locator("[data-mjx-error], mjx-merror").count() == 0


def test_the_page_does_not_scroll_sideways(opened: Opened) -> None:
    assert opened.page.evaluate(TOO_WIDE) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_axe_finds_nothing_serious(opened: Opened) -> None:
    found = Axe().run(opened.page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert [(each["id"], node["target"], node["html"][:200]) for each in serious for node in each["nodes"]] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_keyboard_reaches_every_link_and_button(wide: Opened, name: str) -> None:
    wide.go(name)
    wide.page.keyboard.press("Tab")
    while wide.page.evaluate(MARK):
        wide.page.keyboard.press("Tab")
    assert wide.page.evaluate(NOT_REACHED) == []


def test_the_keyboard_opens_an_answer(wide: Opened) -> None:
    wide.go("idea/mixup")
    answer = wide.page.locator(".admonition.dropdown").first
    assert not answer.locator("p:not(.admonition-title)").first.is_visible()
    answer.locator("button, summary").first.focus()
    wide.page.keyboard.press("Enter")
    assert answer.locator("p:not(.admonition-title)").first.is_visible()


@pytest.mark.parametrize("word", ["mixup", "consistency", "patience", "views"])
def test_a_search_lists_the_chapter_on_it_first(wide: Opened, word: str) -> None:
    wide.go("index")
    wide.page.wait_for_load_state("networkidle")  # what is on its way when a page is left counts as failed
    wide.page.keyboard.press("Control+k")
    wide.page.keyboard.type(word)
    wide.page.keyboard.press("Enter")
    first = wide.page.locator("#search-results li a").first
    first.wait_for()
    assert first.get_attribute("href").split("?")[0] == f"idea/{word}.html"
    assert wide.problems == []
