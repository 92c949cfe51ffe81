"""Where the built book lies, and its pages in the order of the contents."""

from __future__ import annotations

import re
from pathlib import Path

BOOK = Path(__file__).parents[2] / "book"
HTML = BOOK / "_build" / "html"
LISTED: list[str] = re.findall(r"(?:root|file): (\S+)", (BOOK / "_toc.yml").read_text(encoding="utf-8"))
