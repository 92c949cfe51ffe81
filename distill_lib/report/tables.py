"""Tables as the book prints them."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib.records import NOTHING, provenance

if TYPE_CHECKING:
    from IPython.display import HTML

LONG = 24  # letters, from which a cell is text, which needs some width to be read


def html_table(*parts: pd.DataFrame | str | list[str], css: str = "") -> HTML:
    """Tables, paragraphs and numbered notes below each other; an empty table says that it is empty.

    In cells and texts, what stands between backticks is code, between two asterisks strong, and between single ones
    emphasised; lines may break behind a bar. A cell that is a list is its first text, at which the others unfold.

    Args:
        *parts: a table, a paragraph or a list of notes each; an empty text or list is left out.
        css: classes of the whole, such as "wide".
    """
    from IPython.display import HTML

    text = "".join(_html(part) for part in parts if isinstance(part, pd.DataFrame) or part)
    return HTML(f'<div class="{css}">{text}</div>' if css else text)


def source(*frames: pd.DataFrame) -> HTML:
    """The line under a figure that says where its numbers come from; names of runs and commits unfold.

    Args:
        *frames: rows of `records.read`.
    """
    from IPython.display import HTML

    short, _, names = provenance(*frames).partition(" Runs: ")
    return HTML(f'<details class="provenance"><summary>{short}</summary>Runs: {names or "none"}</details>')


def _html(part: pd.DataFrame | str | list[str]) -> str:
    if isinstance(part, str):
        return f"<p>{_marked(part)}</p>"
    if isinstance(part, list):
        return f"<ol>{''.join(f'<li>{_marked(note)}</li>' for note in part)}</ol>"
    if part.empty:
        return f"<p>{NOTHING}</p>"
    cells = part.map(_cell)
    return str(cells.to_html(index=False, border=0, justify="left", escape=False))


def _cell(content: object) -> object:
    if isinstance(content, str):
        return f'<div class="text">{_marked(content)}</div>' if len(content) > LONG else _marked(content)
    if not isinstance(content, list):
        return content
    name, *notes = map(_marked, content)
    return f"<details><summary>{name}</summary>{' '.join(notes)}</details>" if notes else name


def _marked(text: str) -> str:
    text = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False)).replace("|", "|<wbr>")
    return re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", re.sub(r"\*\*(\w[^*]*)\*\*", r"<strong>\1</strong>", text))
