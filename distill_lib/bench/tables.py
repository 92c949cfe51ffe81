"""Records of benchmarks as the book shows them: tables, and single numbers for its sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib.bench import timing
from distill_lib.records import NOTHING

if TYPE_CHECKING:
    import pandas as pd


def rows(benchmark: str, results: Path | None = None, **values: Any) -> timing.Rows:
    """Rows of a record that have these values; none where there is no record."""
    content = timing.read(benchmark, results)
    return [row for row in (content["rows"] if content else []) if values.items() <= row.items()]


def provenance(benchmark: str, results: Path | None = None) -> str:
    """One line that says where and when a benchmark was run, or that it never was."""
    content = timing.read(benchmark, results)
    if content is None:
        return f"No run: drawn from what the benchmark {benchmark} measures."
    rounds = {value.rounds for row in content["rows"] for value in row.values() if isinstance(value, timing.Timing)}
    counted = f"medians of {min(rounds)} rounds in turn" if rounds else "counted"
    return (
        f"Benchmark {benchmark}: {counted}; {content['device']}; {content['date'][:10]}, commit "
        f"{content['commit'][:8]}, jax {content['versions']['jax']}."
    )


def table(rows: timing.Rows, columns: dict[str, str] | None = None) -> pd.DataFrame:
    """Rows of a record as text; columns are titles by key, and without them all that say anything."""
    import pandas as pd

    keys = columns or {key: key for row in rows for key in row if any(each.get(key) is not None for each in rows)}
    return pd.DataFrame([{title: timing.cell(key, row.get(key)) for key, title in keys.items()} for row in rows])


def value(shape: str, benchmark: str, key: str, results: Path | None = None, **values: Any) -> str:
    """A number of the last row of a record that has these values, as text.

    Args:
        shape: a format, such as "{:.2f} times".
        benchmark: name of the record.
        key: of the number; of a timing it is the median, in seconds.
        results: the results folder; None finds it.
        **values: of the row.

    Returns:
        The text; "no records yet" where there is no such row, or no number in it.
    """
    numbers = [row[key] for row in rows(benchmark, results, **values) if row.get(key) is not None]
    if not numbers:
        return NOTHING
    return shape.format(numbers[-1].median if isinstance(numbers[-1], timing.Timing) else numbers[-1])
