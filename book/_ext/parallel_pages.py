"""Sphinx extension: pages are executed in several processes, for which `jupyter-book build` has no option."""

from __future__ import annotations

import os

from sphinx.application import Sphinx

# They do not declare it: the first acts after the build, the second after all pages have been read, the third on LaTeX.
SAFE = ["sphinx-mathjax-offline", "sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"]


def declare_safe(app: Sphinx, *_: object) -> None:
    """Lets Sphinx read in parallel in spite of extensions that say nothing about it."""
    for name in SAFE:
        if extension := app.extensions.get(name):
            extension.parallel_read_safe = True


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.parallel = 2 * (os.cpu_count() or 1)  # twice, for pages come in lots, of which some take longer
    app.connect("env-before-read-docs", declare_safe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
