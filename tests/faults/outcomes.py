"""What became of a case, and the table of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from distill_lib.errors import DistillError

SAME, REFUSED, LOST, OTHER, TRACEBACK = "right in the end", "refused in one line", "lost", "silently other", "traceback"
OUTCOMES = (SAME, REFUSED, LOST, OTHER, TRACEBACK)
BAD = (LOST, OTHER, TRACEBACK)


class Table:
    """Cases by fault and by what it struck; `report` is called with each that is bad."""

    def __init__(self, report: Callable[[str], None] = print) -> None:
        """Has no cases."""
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._report = report

    def add(self, fault: str, struck: str, outcome: str, about: object = "") -> None:
        """Counts a case; `about` says which it was."""
        self._counts.setdefault((fault, struck), Counter())[outcome] += 1
        if outcome in BAD:
            self._report(f"{outcome}: {fault}, {struck}, {about}")

    def rows(self) -> list[dict[str, Any]]:
        """One row a fault and what it struck, with the number of cases and of each outcome."""
        return [
            {"fault": fault, "struck": struck, "cases": counts.total()} | {name: counts[name] for name in OUTCOMES}
            for (fault, struck), counts in self._counts.items()
        ]

    def bad(self) -> int:
        """Cases that must not be."""
        return sum(counts[name] for counts in self._counts.values() for name in BAD)


def outcome(act: Callable[[], object], right: Iterable[object]) -> tuple[str, str]:
    """What comes of reading or doing something, and which error it was: what it returns is to be one of `right`."""
    try:
        result = act()
    except DistillError as error:
        return (REFUSED if "\n" not in str(error) else TRACEBACK), str(error)
    except Exception as error:
        return TRACEBACK, repr(error)
    return (SAME if any(result == each for each in right) else OTHER), ""
