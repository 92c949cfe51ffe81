"""Timing side by side: rounds in turn, so that a machine that slows down slows all of them."""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill_lib import records
from distill_lib.weights import write_atomically


@dataclass(frozen=True)
class Timing:
    """Seconds that one call takes: median and quartiles of so many rounds."""

    median: float
    low: float
    high: float
    rounds: int


def interleaved(
    functions: Mapping[str, Callable[[], Any]], *, rounds: int = 7, calls: int = 1, steps: int = 1
) -> dict[str, Timing]:
    """Times functions in turn, after one call of each that is not counted.

    Args:
        functions: by name; each waits for its own result.
        rounds: at least 2.
        calls: in each round.
        steps: that a call consists of.

    Returns:
        Seconds a step by name.
    """
    for function in functions.values():
        function()
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            spent[name].append(seconds(function, calls) / steps)
    return {name: summary(each) for name, each in spent.items()}


def seconds(function: Callable[[], Any], calls: int = 1) -> float:
    """Seconds a call, of so many one after the other."""
    began = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - began) / calls


def summary(rounds: list[float]) -> Timing:
    """Median and quartiles of the seconds of rounds."""
    low, median, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return Timing(median, low, high, len(rounds))


def parser(measure: Callable[..., Any], rounds: int | None = None) -> argparse.ArgumentParser:
    """The parser of a benchmark's options, which its function names and describes; without rounds, none are asked."""
    name, about = measure.__module__.rpartition(".")[2], inspect.getdoc(measure)
    layout = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(f"python -m distill_lib.bench {name}", description=about, formatter_class=layout)
    if rounds is not None:
        made.add_argument("--rounds", type=several, default=rounds, help=f"how often each is timed ({rounds})")
    return made


def options(
    measure: Callable[..., Any], arguments: Sequence[str], *, rounds: int | None = None, **defaults: Any
) -> argparse.Namespace:
    """A benchmark's options from its command line.

    Args:
        measure: as in `parser`.
        arguments: behind the name of the benchmark.
        rounds: as in `parser`.
        **defaults: by name; a tuple holds the words to choose from, a list numbers, and False is a switch.
    """
    made = parser(measure, rounds)
    for name, default in defaults.items():
        flag, about = f"--{name.replace('_', '-')}", {"default": default, "help": f"usually {default}"}
        if isinstance(default, tuple):
            made.add_argument(flag, nargs="+", choices=default, **about)
        elif isinstance(default, list):
            made.add_argument(flag, nargs="+", type=type(default[0]), **about)
        elif default is False:
            made.add_argument(flag, action="store_true")
        else:
            made.add_argument(flag, type=str if default is None else type(default), **about)
    return made.parse_args(arguments)


def several(text: str) -> int:
    """A number of rounds, of which a median can be told; argparse tells what else there is."""
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"at least 2 are needed, got {number}")
    return number


def write(name: str, rows: list[dict[str, Any]], results: Path | None = None) -> Path:
    """Writes a benchmark's rows with the machine they were measured on; a `Timing` becomes its fields."""
    plain = [{key: asdict(value) if isinstance(value, Timing) else value for key, value in row.items()} for row in rows]
    content = records.environment() | {"benchmark": name, "rows": plain}
    path = (results or records.find_results()) / "benchmarks" / f"{name}.json"
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def read(name: str, results: Path | None = None) -> dict[str, Any] | None:
    """A benchmark's record, its timings as `Timing` again; None if it was never run."""
    path = (results or records.find_results()) / "benchmarks" / f"{name}.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8")) | {
        "benchmark": name
    }  # which had another name in old records
    for row in content["rows"]:
        row |= {key: Timing(**value) for key, value in row.items() if isinstance(value, dict)}
    return content


def provenance(content: dict[str, Any]) -> str:
    """One line that says where and when a benchmark was run."""
    rounds = {value.rounds for row in content["rows"] for value in row.values() if isinstance(value, Timing)}
    counted = f"medians of {min(rounds)} rounds in turn" if rounds else "counted"
    return (
        f"Benchmark {content['benchmark']}: {counted}; {content['device']}; {content['date'][:10]}, commit "
        f"{content['commit'][:8]}, jax {content['versions']['jax']}."
    )


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text; of a `Timing` the median."""
    shown = cells(rows)
    widths = {key: max(len(key), *(len(row[key]) for row in shown)) for key in shown[0]}
    lines = ["  ".join(key.ljust(width) for key, width in widths.items())]
    lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()) for row in shown]
    return "\n".join(line.rstrip() for line in lines)


def cells(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows as text, all with the columns of any of them; of a `Timing` the median."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: _cell(row[key]) if key in row else "" for key in columns} for row in rows]


def _cell(value: Any) -> str:
    if isinstance(value, Timing):
        return f"{value.median:.2f} s" if value.median >= 1 else f"{1000 * value.median:.1f} ms"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
