"""Tables as the book prints them."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib.records import NOTHING

if TYPE_CHECKING:
    from IPython.display import HTML


def html_table(*parts: pd.DataFrame | str | list[str], css: str = "") -> HTML:
    """Tables, paragraphs and numbered notes below each other; an empty table says that it is empty.

    In cells and texts, what stands between backticks is code, between two asterisks strong, and between single ones
    emphasised; lines may break behind a bar.

    Args:
        *parts: a table, a paragraph or a list of notes each; an empty text or list is left out.
        css: classes of the whole, such as "wide".
    """
    from IPython.display import HTML

    text = "".join(_html(part) for part in parts if isinstance(part, pd.DataFrame) or part)
    return HTML(f'<div class="{css}">{text}</div>' if css else text)


def _html(part: pd.DataFrame | str | list[str]) -> str:
    if isinstance(part, str):
        return f"<p>{_marked(part)}</p>"
    if isinstance(part, list):
        return f"<ol>{''.join(f'<li>{_marked(note)}</li>' for note in part)}</ol>"
    if part.empty:
        return f"<p>{NOTHING}</p>"
    cells = part.map(lambda cell: _marked(cell) if isinstance(cell, str) else cell)
    return str(cells.to_html(index=False, border=0, justify="left", escape=False))


def _marked(text: str) -> str:
    text = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False)).replace("|", "|<wbr>")
    return re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", re.sub(r"\*\*(\w[^*]*)\*\*", r"<strong>\1</strong>", text))
