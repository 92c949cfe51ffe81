"""Tables as pages print them."""

from __future__ import annotations

import pandas as pd

from distill_lib import records
from distill_lib.report.tables import html_table


def test_marks_become_html_and_everything_else_is_escaped() -> None:
    """Stars of hours that were measured are no marks."""
    table = pd.DataFrame({"type": ["`a < b`"], "hours": ["0.1*"], "here": ["train[:90%]|test **disagrees**"], "n": [3]})
    text = html_table("*The paper says:* so", table, "a `b`", css="wide").data
    assert text.startswith('<div class="wide"><p><em>The paper says:</em> so</p><table')
    assert "<code>a &lt; b</code>" in text and "<td>0.1*</td>" in text and "<td>3</td>" in text
    assert "train[:90%]|<wbr>test <strong>disagrees</strong>" in text
    assert text.endswith("</table><p>a <code>b</code></p></div>")


def test_long_texts_are_marked_so_that_they_are_not_squeezed() -> None:
    text = html_table(pd.DataFrame({"policy": ["fixed teacher, central crop"], "key": ["fix/cc"]})).data
    assert '<td><div class="text">fixed teacher, central crop</div></td>' in text and "<td>fix/cc</td>" in text


def test_what_is_empty_says_so_or_is_left_out() -> None:
    assert html_table("", pd.DataFrame()).data == f"<p>{records.NOTHING}</p>"
