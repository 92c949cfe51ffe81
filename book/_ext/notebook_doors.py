"""Sphinx extension: a notebook's page offers it for download and, where the code is public, to open elsewhere."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def offer(app: Sphinx, page: str, template: str, context: dict[str, Any], *_: object) -> None:
    """Adds a menu to the header: the notebook itself and, once `public_repository` is set, Binder and Colab."""
    if context.get("page_source_suffix") != ".ipynb":
        return
    links = [("This notebook", "fas fa-download", f"{context['pathto']('_sources', 1)}/{context['sourcename']}")]
    if repository := app.config.public_repository:
        notebook = f"book/{page}.ipynb"
        links += [
            ("Binder", "fas fa-rocket", f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/{notebook}"),
            ("Colab", "fas fa-cloud", f"https://colab.research.google.com/github/{repository}/blob/HEAD/{notebook}"),
        ]
    buttons = [{"type": "link", "text": text, "icon": icon, "url": url} for text, icon, url in links]
    menu = {"type": "group", "tooltip": "Run this notebook", "icon": "fas fa-download", "label": "notebook-buttons"}
    context["header_buttons"].insert(0, menu | {"buttons": buttons})


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("public_repository", "", "html", str)
    app.connect("html-page-context", offer, priority=502)  # after the theme, which begins the header at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
