"""Sphinx extension: formulas are set by the MathJax that sphinx-mathjax-offline brings, with glyphs as SVG.

That package chooses web fonts, which some browsers refuse to pages that are opened from disk.
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config


def use_svg(app: Sphinx, config: Config) -> None:
    """Overrides the package's choice, which no configuration value can."""
    config.mathjax_path = "mathjax/tex-svg.js"  # the package copies its files to _static/mathjax


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("config-inited", use_svg)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
