"""The pages of the built book, read as HTML: what they load, where they link to, and what their figures say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from built import BOOK, HTML, LISTED

NAMES = [name for name in LISTED if not name.startswith("experiments/")]
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}


class Page(HTMLParser):
    """What a page loads, where it links to, its anchors, and its figures: (alternative text, caption, provenance)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.figures: list[dict[str, str]] = []
        self._part: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects addresses, and opens figures and their parts."""
        given = {name: value or "" for name, value in attrs}
        if given.get(LOADS.get(tag, "")):
            self.loads.append(given[LOADS[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.anchors.add(given.get("id", ""))
        if tag == "figure":
            self.figures.append({"alt": "", "caption": "", "provenance": ""})
        if tag == "img" and self.figures:
            self.figures[-1]["alt"] = self.figures[-1]["alt"] or given.get("alt", "")
        if tag in ("figcaption", "span"):
            part = "caption" if tag == "figcaption" else "provenance" if "provenance" in given.get("class", "") else ""
            self._part.append(part or (self._part[-1] if self._part else ""))

    def handle_endtag(self, tag: str) -> None:
        """Closes parts of a figure."""
        if tag in ("figcaption", "span") and self._part:
            self._part.pop()

    def handle_data(self, data: str) -> None:
        """Collects the words of a figure's parts."""
        if self._part and self._part[-1] and self.figures:
            self.figures[-1][self._part[-1]] += data


def html_pages() -> list[Path]:
    """All pages that were built, those in folders too."""
    return [*HTML.glob("*.html"), *HTML.glob("[a-z]*/*.html")]


def test_every_page_is_built() -> None:
    assert LISTED and [name for name in LISTED if not (HTML / f"{name}.html").is_file()] == []


def test_no_cell_failed() -> None:
    assert [path.name for path in html_pages() if "Traceback" in path.read_text()] == []


def test_no_page_asks_another_host() -> None:
    """Scripts, styles, fonts and images come with the book; links that a reader may follow are no requests."""
    for path in html_pages():
        text = path.read_text()
        loads = Page(text).loads
        assert loads and not [url for url in loads if re.match(r"(\w+:)?//", url)], path.name
        assert not re.search(r"unpkg|jsdelivr|cdnjs|googleapis|mybinder", text), path.name
        for url in loads:
            assert (path.parent / url.split("?")[0].split("#")[0]).exists(), (path.name, url)
    for path in (HTML / "_static").glob("**/*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import\s+(url\()?['\"]?(https?:)?//", path.read_text()), path


def test_every_link_inside_the_book_leads_somewhere() -> None:
    pages = {path.resolve(): Page(path.read_text()) for path in html_pages()}
    for path, page in pages.items():
        for url in page.links:
            file, _, anchor = url.partition("#")
            if re.match(r"\w+:", url):
                continue
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            assert target.exists(), (path.name, url)
            assert not anchor or anchor in pages[target].anchors, (path.name, url)


def test_every_page_has_an_icon_and_a_description() -> None:
    for name in sorted({*NAMES} - {"bibliography"}):
        text = (HTML / f"{name}.html").read_text()
        assert 'rel="icon"' in text and re.search(r'<meta name="description" content="[^"]{70,}"', text), name


def test_slides_show_figures_of_the_book_and_their_notes() -> None:
    for source in BOOK.glob("teaching/slides/*.md"):
        text, slides = source.read_text(), (HTML / "slides" / f"{source.stem}.html").read_text()
        images = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", slides)
        assert len(images) == len(re.findall(r"\(fig-", text)) > 4
        assert all((HTML / "slides" / image).is_file() for image in images)
        assert text.count("\nNote:") == text.count("\n---\n") + 1  # each slide has something for the speaker


def test_no_sentence_of_an_attribute_is_taken_for_its_type() -> None:
    text = (HTML / "reference" / "api.html").read_text()
    assert "transfer_set" in text and "<dt" in text
    assert re.findall(r"<dt class=\"field-(?:odd|even)\">Type<", text) + re.findall("~typing|&lt;factory", text) == []


def test_formulas_are_set_by_the_local_mathjax() -> None:
    """With glyphs as SVG: no font files, which browsers refuse to pages opened from disk."""
    assert (HTML / "_static" / "mathjax" / "tex-svg.js").is_file()
    assert "mathjax/tex-svg.js" in (HTML / "idea" / "function_matching.html").read_text()


def test_only_the_playground_loads_the_scripts_of_live_figures() -> None:
    loading = {path.stem for path in html_pages() if "_static/play" in path.read_text()}
    assert loading == {"playground"}


def test_every_figure_has_caption_alternative_text_and_provenance() -> None:
    found = {name: Page((HTML / f"{name}.html").read_text()).figures for name in NAMES}
    assert len(found["index"]) == 1
    assert all(len(found[f"idea/{name}"]) >= 2 for name in ("function_matching", "views", "consistency", "theory"))
    for name, figures in found.items():
        for figure in figures:
            assert len(figure["alt"]) > 40 and len(figure["caption"]) > 20, (name, figure)
            assert re.search(r"\d+ runs?; seeds|No run: drawn", figure["provenance"]), (name, figure)
