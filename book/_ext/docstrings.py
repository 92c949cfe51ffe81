"""Sphinx extension: docstrings of values are sentences, and fields of named tuples need no entry of their own."""

from __future__ import annotations

from sphinx.application import Sphinx


def keep_sentence(app: Sphinx, kind: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Keeps napoleon from taking what stands before a colon for a type."""
    if kind in ("data", "attribute", "property") and lines:
        lines[0] = lines[0].replace(": ", " \N{EN DASH} ")


def skip_field(app: Sphinx, kind: str, name: str, value: object, skip: bool, options: object) -> bool | None:
    """Leaves out what Python itself says of a named tuple's field."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field number") else None


def name_factory(
    app: Sphinx, kind: str, name: str, value: object, options: object, signature: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Writes the default of a dataclass that a function makes as Python does elsewhere, so that types are shortened."""
    return signature and signature.replace("<factory>", "..."), result


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)  # before napoleon's 500
    app.connect("autodoc-process-signature", name_factory)
    app.connect("autodoc-skip-member", skip_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
