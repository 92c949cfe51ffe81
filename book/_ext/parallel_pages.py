"""Sphinx extension: pages are executed in several processes, for which `jupyter-book build` has no option."""

from __future__ import annotations

import os
from typing import Any

from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from myst_nb.core.execute import direct
from sphinx.application import Sphinx

from distill_lib.experiments import notebooks

# They do not declare it: the first acts after the build, the second after all pages have been read, the third on LaTeX.
SAFE = ["sphinx-mathjax-offline", "sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"]


def declare_safe(app: Sphinx, *_: object) -> None:
    """Lets Sphinx read in parallel in spite of extensions that say nothing about it."""
    for name in SAFE:
        if extension := app.extensions.get(name):
            extension.parallel_read_safe = True


def execute(*about: Any, **options: Any) -> ExecutionResult:
    """Executes a page as myst-nb does, but with channels of its own, since several pages start together."""
    with notebooks.channels() as config:
        return single_nb_execution(*about, config=config, **options)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.parallel = 2 * (os.cpu_count() or 1)  # twice, for pages come in lots, of which some take longer
    direct.single_nb_execution = execute
    app.connect("env-before-read-docs", declare_safe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
