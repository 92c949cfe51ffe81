"""Timing side by side, in rounds that take turns, so that a machine that slows down slows all; and its records."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill_lib import records
from distill_lib.errors import aligned
from distill_lib.weights import write_atomically

Rows = list[dict[str, Any]]
SHARES = ("share", "share of peak", "share at 50 ms", "of as many runs", "rest of the mass")  # shown in percent


@dataclass(frozen=True)
class Timing:
    """Seconds that one call takes: median and quartiles of so many rounds."""

    median: float
    low: float
    high: float
    rounds: int


def interleaved(functions: Mapping[str, Callable[[], Any]], *, rounds: int = 7, steps: int = 1) -> dict[str, Timing]:
    """Seconds a step of functions that do so many and wait, timed in turn after one call that is not counted."""
    for function in functions.values():
        function()
    spent = [[seconds(function) / steps for function in functions.values()] for _ in range(rounds)]
    return dict(zip(functions, map(summary, zip(*spent, strict=True)), strict=True))


def seconds(function: Callable[[], Any]) -> float:
    """Of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def summary(rounds: Iterable[float]) -> Timing:
    """Median and quartiles of the seconds of at least two rounds."""
    every = list(rounds)
    low, median, high = statistics.quantiles(every, n=4, method="inclusive")
    return Timing(median, low, high, len(every))


def write(name: str, rows: Rows, results: Path | None = None) -> Path:
    """Writes a benchmark's rows with the machine they were measured on; a `Timing` becomes its fields."""
    content = records.environment() | {"benchmark": name, "rows": rows}
    path = (results or records.find_results()) / "benchmarks" / f"{name}.json"
    write_atomically(path, (json.dumps(content, indent=1, default=asdict) + "\n").encode())
    return path


def read(name: str, results: Path | None = None) -> dict[str, Any] | None:
    """A benchmark's record, its timings as `Timing` again; None if it was never run."""
    path = (results or records.find_results()) / "benchmarks" / f"{name}.json"
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for row in content["rows"]:
        row |= {key: Timing(**value) for key, value in row.items() if isinstance(value, dict)}
    return content | {"benchmark": name}  # which had another name in old records


def table(rows: Rows) -> str:
    """The rows as aligned text, all with the columns of any of them."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return aligned([list(keys), *([cell(key, row.get(key)) for key in keys] for row in rows)])


def cell(key: str, value: Any) -> str:
    """A value as text, of a `Timing` the median; None is blank."""
    if isinstance(value, Timing):
        if value.median >= 1:
            return f"{value.median:.2f} s"
        return f"{1000 * value.median:.{1 if value.median >= 0.01 else 2}f} ms"
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if key in SHARES:
        return f"{100 * value:.{0 if abs(value) >= 0.1 else 1}f} %"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
