"""Timing side by side, in rounds that take turns, so that a machine that slows down slows all; and its records."""

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_lib import records
from distill_lib.report.benchmarks import Rows, Timing, path_of
from distill_lib.weights import write_atomically


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
    path = path_of(name, results)
    write_atomically(path, (json.dumps(content, indent=1, default=asdict) + "\n").encode())
    return path
