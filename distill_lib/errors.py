"""Errors that a user can mend: one clear line that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DistillError(Exception):
    """A problem with a name, a file or a setting that the user can mend; its message is one line."""


def unknown(kind: str, name: object, known: Iterable[str]) -> DistillError:
    """Builds the error for an unknown name, listing the valid ones and the closest of them.

    Args:
        kind: what the name stands for, such as "dataset".
        name: the name that was given.
        known: the valid names.

    Returns:
        The error, to be raised by the caller.
    """
    choices = list(known)
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return DistillError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(choices) or 'none'}.")
