"""Sphinx extension: slides of the lectures, from teaching/slides/*.md and the figures of the pages that were built.

A slide ends at a line `---`; what follows `Note:` is for the speaker; `![](fig-name)` is a figure of the book by its
name. reveal.js, which shows them, comes with the package sphinx-revealjs, and MathJax with the book: no network.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import sphinx_revealjs
from sphinx.application import Sphinx
from sphinx.util import logging

REVEAL = Path(sphinx_revealjs.__file__).parent / "_static" / "revealjs"
FILES = (
    *("dist/reset.css", "dist/reveal.css", "dist/theme/white.css", "dist/reveal.js"),
    *(f"plugin/{name}/{name}.js" for name in ("markdown", "math", "notes")),
    "LICENSE",
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="reveal/dist/reset.css">
<link rel="stylesheet" href="reveal/dist/reveal.css">
<link rel="stylesheet" href="reveal/dist/theme/white.css">
<style>
.reveal {{ font-size: 30px; }}
.reveal h1, .reveal h2, .reveal h3 {{ text-transform: none; }}
.reveal section img {{ width: 88%; max-height: 62vh; object-fit: contain; }}
</style>
</head>
<body>
<div class="reveal"><div class="slides">
<section data-markdown data-separator="^---$" data-separator-notes="^Note:"><textarea data-template>
{slides}
</textarea></section>
</div></div>
<script src="reveal/dist/reveal.js"></script>
<script src="reveal/plugin/markdown/markdown.js"></script>
<script src="reveal/plugin/notes/notes.js"></script>
<script src="reveal/plugin/math/math.js"></script>
<script>
Reveal.initialize({{
  hash: true,
  slideNumber: true,
  mathjax3: {{ mathjax: "../_static/mathjax/tex-svg.js", tex: {{ inlineMath: [["$", "$"]] }} }},
  plugins: [RevealMarkdown, RevealMath.MathJax3, RevealNotes],
}});
</script>
</body>
</html>
"""
FIGURE = re.compile(r'<figure[^>]* id="([\w-]+)".*?<img[^>]* src="(?:\.\./)*([^"]+)"', re.DOTALL)
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)
USE = re.compile(r"!\[([^\]]*)\]\((fig-[\w-]+)\)")


def write(app: Sphinx, error: Exception | None) -> None:
    """Writes slides/NAME.html for each teaching/slides/NAME.md, with what they load beside them."""
    sources = sorted(Path(app.srcdir, "teaching", "slides").glob("*.md"))
    if error or app.builder.format != "html" or not sources:
        return
    built, known = Path(app.outdir), {}
    for page in sorted(built.glob("**/*.html")):
        known |= dict(FIGURE.findall(page.read_text(encoding="utf-8")))
    folder = built / "slides"
    for name in FILES:
        target = folder / "reveal" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REVEAL / name, target)
    theme = folder / "reveal" / "dist" / "theme" / "white.css"
    theme.write_text(re.sub(r"@import url\([^)]*\);", "", theme.read_text(encoding="utf-8")), encoding="utf-8")  # fonts
    for source in sources:
        text = _with_images(source, known)
        title = text.partition("\n")[0].lstrip("# ")
        page = PAGE.format(title=html.escape(title), slides=text.replace("</textarea", "&lt;/textarea"))
        (folder / f"{source.stem}.html").write_text(page, encoding="utf-8")


def _with_images(source: Path, known: dict[str, str]) -> str:
    def image(use: re.Match[str]) -> str:
        text, name = use.groups()
        if name not in known:
            logging.getLogger(__name__).warning("%s shows %s, and no page has such a figure", source, name)
        return f"![{text}](../{known.get(name, name)})"

    text = USE.sub(image, source.read_text(encoding="utf-8"))
    return FORMULA.sub(lambda formula: re.sub(r"\\(?=[;,|!])", r"\\\\", formula[0]), text)  # Markdown takes one off


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
