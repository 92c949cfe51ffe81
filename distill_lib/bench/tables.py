"""Records of benchmarks as the book shows them: tables, and single numbers for its sentences."""

from typing import TYPE_CHECKING, Any

from distill_lib import records
from distill_lib.bench import timing
from distill_lib.records import NOTHING

if TYPE_CHECKING:
    import pandas as pd

GPU = "gpu"  # folder of the results for records of an accelerator; those of the CPU stay


def rows(benchmark: str, **values: Any) -> timing.Rows:
    """Rows of a record that have these values; none where there is no record."""
    content = timing.read(benchmark) or {"rows": []}
    return [row for row in content["rows"] if values.items() <= row.items()]


def provenance(benchmark: str) -> str:
    """One line that says where and when a benchmark was run, or that it never was."""
    content = timing.read(benchmark)
    if content is None:
        return f"No run: drawn from what the benchmark {benchmark} measures."
    rounds = {value.rounds for row in content["rows"] for value in row.values() if isinstance(value, timing.Timing)}
    counted = f"medians of {min(rounds)} rounds in turn" if rounds else "counted"
    return (
        f"Benchmark {benchmark}: {counted}; {content['device']}; {content['date'][:10]}, commit "
        f"{content['commit'][:8]}, jax {content['versions']['jax']}."
    )


def table(rows: timing.Rows, columns: dict[str, str] | None = None) -> "pd.DataFrame":
    """Rows of a record as text; columns are titles by key, and without them all that say anything."""
    import pandas as pd

    keys = columns or {key: key for row in rows for key in row if any(each.get(key) is not None for each in rows)}
    return pd.DataFrame([{title: timing.cell(key, row.get(key)) for key, title in keys.items()} for row in rows])


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
        content = timing.read(benchmark, folder)
        if content and not numbers and not (on_gpu and content["device"].startswith("CPU")):
            numbers = _numbers([row for row in content["rows"] if values.items() <= row.items()], key)
    row = {"goal": about, "wanted": f"at {word} {timing.cell(key, float(limit))}"}
    if not numbers:
        command = f"nox -s bench -- {benchmark}" + (f" {on_gpu} on a GPU" if on_gpu else "")
        return row | {"measured": "", "verdict": f"not run: {command}"}
    number = worst(numbers)
    verdict = "met" if worst(number, limit) == limit else f"missed by {abs(number / limit - 1):.0%}"
    return row | {"measured": timing.cell(key, number), "verdict": verdict}


def _numbers(rows: timing.Rows, key: str) -> list[float]:
    numbers = [row[key] for row in rows if row.get(key) is not None]
    return [number.median if isinstance(number, timing.Timing) else number for number in numbers]
