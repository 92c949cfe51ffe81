"""Sphinx extension: building the book trains nothing, compiles nothing twice, and folds names of runs under figures."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

COMPILED = {  # JAX's, where runs keep theirs: a page asks for hundreds of small programs, and the next build finds them
    "JAX_COMPILATION_CACHE_DIR": str(Path.home() / ".cache" / "distill_lib" / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
# A caption's text, its provenance, which `records.provenance` writes, and the end of its paragraph
FIGURE_SOURCE = re.compile(
    r'<span class="provenance">\s*(?:<span class="pasted-text">)?(?P<short>[^<]*?)'
    r"(?: Runs: (?P<long>[^<]*))?(?:</span>)?\s*</span>(?P<rest>.*?</p>)",
    re.DOTALL,
)


def fold(app: Sphinx, page: str, template: str, context: dict[str, Any], *_: object) -> None:
    """Puts the long part of each provenance line into a block of its own, which a reader opens."""
    if "body" in context:
        context["body"] = re.sub(r"<figcaption>.*?</figcaption>", _folded, context["body"], flags=re.DOTALL)


def _folded(caption: re.Match[str]) -> str:
    def unfold(source: re.Match[str]) -> str:
        if not source["long"]:
            return source[0]
        kept = f'<span class="provenance">{source["short"]}</span>{source["rest"]}'
        return f'{kept}<details class="provenance"><summary>Runs and commits</summary>{source["long"]}</details>'

    return FIGURE_SOURCE.sub(unfold, caption[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    os.environ["DISTILL_READ_ONLY"] = "1"  # kernels inherit both; `experiments.run` heeds this one
    for name, value in COMPILED.items():
        os.environ.setdefault(name, value)
    app.connect("html-page-context", fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
