"""Records of benchmarks as the book shows them: tables, and single numbers for its sentences."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib import records
from distill_lib.errors import aligned
from distill_lib.records import NOTHING

if TYPE_CHECKING:
    import pandas as pd

Rows = list[dict[str, Any]]
GPU = "gpu"  # folder of the results for records of an accelerator; those of the CPU stay
SHARES = ("share", "share of peak", "share at 50 ms", "of as many runs", "rest of the mass")  # shown in percent


@dataclass(frozen=True)
class Timing:
    """Seconds that one call takes: median and quartiles of so many rounds."""

    median: float
    low: float
    high: float
    rounds: int


def path_of(name: str, results: Path | None = None) -> Path:
    """Where a benchmark's record lies in a results folder."""
    return (results or records.find_results()) / "benchmarks" / f"{name}.json"


def read(name: str, results: Path | None = None) -> dict[str, Any] | None:
    """A benchmark's record, its timings as `Timing` again; None if it was never run."""
    if not (path := path_of(name, results)).is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for row in content["rows"]:
        row |= {key: Timing(**value) for key, value in row.items() if isinstance(value, dict)}
    return content | {"benchmark": name}  # which had another name in old records


def rows(benchmark: str, **values: Any) -> Rows:
    """Rows of a record that have these values; none where there is no record."""
    content = read(benchmark) or {"rows": []}
    return [row for row in content["rows"] if values.items() <= row.items()]


def provenance(benchmark: str) -> str:
    """One line that says where and when a benchmark was run, or that it never was."""
    content = read(benchmark)
    if content is None:
        return f"No run: drawn from what the benchmark {benchmark} measures."
    rounds = {value.rounds for row in content["rows"] for value in row.values() if isinstance(value, Timing)}
    counted = f"medians of {min(rounds)} rounds in turn" if rounds else "counted"
    return (
        f"Benchmark {benchmark}: {counted}; {content['device']}; {content['date'][:10]}, commit "
        f"{content['commit'][:8]}, jax {content['versions']['jax']}."
    )


def table(rows: Rows, columns: dict[str, str] | None = None) -> "pd.DataFrame":
    """Rows of a record as text; columns are titles by key, and without them all that say anything."""
    import pandas as pd

    keys = columns or {key: key for row in rows for key in row if any(each.get(key) is not None for each in rows)}
    return pd.DataFrame([{title: cell(key, row.get(key)) for key, title in keys.items()} for row in rows])


def as_text(rows: Rows) -> str:
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


def value(shape: str, benchmark: str, key: str, **values: Any) -> str:
    """A number, in seconds of a timing, of the last row with these values, as `shape` has it; or "no records yet"."""
    numbers = _numbers(rows(benchmark, **values), key)
    return shape.format(numbers[-1]) if numbers else NOTHING


def goal(
    about: str,
    benchmark: str,
    key: str,
    *,
    at_most: float | None = None,
    at_least: float = 0.0,
    on_gpu: str = "",
    **values: Any,
) -> dict[str, str]:
    """A goal for a number of a record, and whether it is met by the worst of the rows that have these values.

    Of a timing the number is the median, in seconds; the limit is `at_most`, or `at_least`. `on_gpu` has options of the
    command, where only a record from an accelerator counts. Returns goal (what it is about), wanted, measured and
    verdict; what was not measured names the command that does.
    """
    limit, word, worst = (at_least, "least", min) if at_most is None else (at_most, "most", max)
    place, numbers = records.find_results(), list[float]()
    for folder in (place / GPU, place) if on_gpu else (place,):
        content = read(benchmark, folder)
        if content and not numbers and not (on_gpu and content["device"].startswith("CPU")):
            numbers = _numbers([row for row in content["rows"] if values.items() <= row.items()], key)
    row = {"goal": about, "wanted": f"at {word} {cell(key, float(limit))}"}
    if not numbers:
        command = f"nox -s bench -- {benchmark}" + (f" {on_gpu} on a GPU" if on_gpu else "")
        return row | {"measured": "", "verdict": f"not run: {command}"}
    number = worst(numbers)
    verdict = "met" if worst(number, limit) == limit else f"missed by {abs(number / limit - 1):.0%}"
    return row | {"measured": cell(key, number), "verdict": verdict}


def _numbers(rows: Rows, key: str) -> list[float]:
    numbers = [row[key] for row in rows if row.get(key) is not None]
    return [number.median if isinstance(number, Timing) else number for number in numbers]
