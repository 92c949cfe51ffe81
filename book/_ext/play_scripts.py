"""Sphinx extension: scripts and styles of the live figures go to the pages that have some, not to all of them."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def leave_out(app: Sphinx, page: str, template: str, context: dict[str, Any], *_: object) -> None:
    """Takes them out of every other page, since jupyter-book loads whatever lies in the folder of static files."""
    if page.startswith("play/"):
        return
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if "_static/play" not in str(getattr(file, "filename", ""))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
