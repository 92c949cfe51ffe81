"""Sphinx extension: what browsers, search engines and screen readers need of a page beyond what the theme gives."""

from __future__ import annotations

import html
import re
from typing import Any

from sphinx.application import Sphinx

ABOUT = ("Before this chapter", "Cost:", "Command:")  # what a chapter says of itself before it begins
FIGURE = re.compile(r'(<figure\b[^>]*>\s*)(<img\b[^>]*?\bsrc="([^"]*)"[^>]*>)')


def mend(app: Sphinx, page: str, template: str, context: dict[str, Any], *_: object) -> None:
    """Describes the page by its first paragraph; makes drawings links, and a bibliography's entries items of a list."""
    body = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')
    context["body"] = FIGURE.sub(r'\1<a class="drawing" href="\3">\2</a>', body)
    if text := _first_words(body):
        context["metatags"] = f'{context.get("metatags", "")}<meta name="description" content="{html.escape(text)}" />'


def _first_words(body: str) -> str:
    """The first paragraph of at least 80 characters outside of lists and without formulas, cut at a word."""
    for paragraph in re.findall(r"<p>(.*?)</p>", re.sub(r"<[uo]l.*?</[uo]l>", "", body, flags=re.DOTALL), re.DOTALL):
        text = html.unescape(" ".join(re.sub(r"<[^>]+>", "", paragraph).split()))
        if len(text) >= 80 and "math" not in paragraph and not text.startswith(ABOUT):
            return text if len(text) <= 200 else text[:200].rsplit(" ", 1)[0] + " \N{HORIZONTAL ELLIPSIS}"
    return ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
