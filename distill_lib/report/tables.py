"""Tables as the book prints them."""

import html
import re
from typing import TYPE_CHECKING

import pandas as pd

from distill_lib.records import NOTHING, provenance

if TYPE_CHECKING:
    from IPython.display import HTML

LONG = 24  # letters, from which a cell is text, which needs some width to be read


def html_table(*parts: pd.DataFrame | str, css: str = "") -> "HTML":
    """Tables, which say when they are empty, and paragraphs below each other, in a division of the classes `css`.

    Texts have Markdown's backticks and asterisks; a cell that is a list is its first text, at which others unfold.
    """
    from IPython.display import HTML

    text = ""
    for part in parts:
        if isinstance(part, pd.DataFrame):
            markup = part.map(_cell).to_html(index=False, border=0, justify="left", escape=False)
            text += f"<p>{NOTHING}</p>" if part.empty else markup
        elif part:
            text += f"<p>{_marked(part)}</p>"
    return HTML(f'<div class="{css}">{text}</div>' if css else text)


def source(*frames: pd.DataFrame) -> "HTML":
    """The line under a figure that says where its numbers, rows of `records.read`, come from; names of runs unfold."""
    from IPython.display import HTML

    short, _, names = provenance(*frames).partition(" Runs: ")
    return HTML(f'<details class="provenance"><summary>{short}</summary>Runs: {names or "none"}</details>')


def _cell(content: object) -> object:
    if isinstance(content, list):
        name, *notes = map(_marked, content)
        return f"<details><summary>{name}</summary>{' '.join(notes)}</details>" if notes else name
    if not isinstance(content, str):
        return content
    return f'<div class="text">{_marked(content)}</div>' if len(content) > LONG else _marked(content)


def _marked(text: str) -> str:
    text = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False)).replace("|", "|<wbr>")
    return re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", re.sub(r"\*\*(\w[^*]*)\*\*", r"<strong>\1</strong>", text))
