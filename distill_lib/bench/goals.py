"""What this project set itself as goals for speed, beside what the committed benchmarks found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from distill_lib import records
from distill_lib.bench import cases, gpu, timing

Rows = list[dict[str, Any]]
NOT_RUN = "not run"


@dataclass(frozen=True)
class Goal:
    """One number to reach.

    Attributes:
        about: what is measured.
        benchmark: the record that holds it.
        limit: the most that it may be.
        found: reads it from the record's rows; None where they do not hold it.
        shape: how a value is written.
        accelerator: whether only a record from an accelerator counts.
        options: of the benchmark's command, behind its name.
        why: what a miss is due to.
    """

    about: str
    benchmark: str
    limit: float
    found: Callable[[Rows], float | None]
    shape: str = "{:.2f}"
    accelerator: bool = False
    options: str = ""
    why: str = ""


def _one(rows: Rows, key: str, **wanted: Any) -> float | None:
    """A number of the last row with these values; of a timing, the median."""
    for row in reversed(rows):
        if all(row.get(name) == value for name, value in wanted.items()):
            value = row.get(key)
            return value.median if isinstance(value, timing.Timing) else value
    return None


def _class_over_single(rows: Rows) -> float | None:
    share = _one(rows, "of as many runs", form="one program for each student", students=8)
    return None if share is None else 8 * share


def _of_peer(policy: str) -> Callable[[Rows], float | None]:
    """The time of a class, as a share of that of as many runs of compiled PyTorch."""

    def share(rows: Rows) -> float | None:
        times = _one(rows, "times as long", case=f"embedded, {policy}, 8 students", form=cases.COMPILED)
        return 1 / times if times else None

    return share


GOALS = (
    Goal(
        "8 students of the embedded study, of the time of 8 runs",
        "sweep",
        0.65,
        lambda rows: _one(rows, "of as many runs", form="one program for each student", students=8),
    ),
    Goal(
        "8 students R50x1 with teacher R152x2, of the time of one",
        "sweep",
        2.7,
        _class_over_single,
        accelerator=True,
        options=" --dataset flowers --variant fast --forms 1 --made-up",
    ),
    Goal(
        "training loop beside its compiled step, of a step of 50 ms",
        "loop",
        0.02,
        lambda rows: max((row["share at 50 ms"] for row in rows if row["kind"] == "loop"), default=None),
        shape="{:.2%}",
    ),
    Goal(
        "checkpoints, of a run of R50x1",
        "loop",
        0.01,
        lambda rows: _one(rows, "share", kind="checkpoint", case="bit_r50x1"),
        shape="{:.2%}",
    ),
    Goal(
        "start to the end of the first step, of a second run (s)",
        "loop",
        10.0,
        lambda rows: _one(rows, "first step", kind="start", case="second run"),
        shape="{:.1f}",
        why="most of it is importing, reading and tracing; compiled programs come from the cache",
    ),
    *(
        Goal(f"8 students by {policy}, of the time of 8 runs in compiled PyTorch", "step", 0.65, _of_peer(policy))
        for policy in ("mix", "same/ic")
    ),
)


def table(results: Path | None = None) -> pd.DataFrame:
    """Each goal, what was measured, and whether it is met or by how much it is missed.

    Args:
        results: the results folder; None finds it.

    Returns:
        A row a goal: goal, wanted, measured, verdict. What was not measured names the command that does.
    """
    usual = results or records.find_results()
    rows = [_row(goal, _record(goal.benchmark, usual, accelerator=goal.accelerator)) for goal in GOALS]
    return pd.DataFrame(rows + _steps(_step_rows(usual)))


def _record(benchmark: str, results: Path, *, accelerator: bool) -> dict[str, Any] | None:
    """A benchmark's record; where an accelerator counts, the one that the benchmark `gpu` left comes first."""
    places = (results / gpu.FOLDER, results) if accelerator else (results,)
    return next(filter(None, (timing.read(benchmark, place) for place in places)), None)


def _step_rows(results: Path) -> Rows:
    """Rows of the step's record; what only an accelerator can fill in is from its own record, if there is one."""
    own, other = (timing.read("step", place) for place in (results, results / gpu.FOLDER))
    ran = {_identity(row): row for row in (other["rows"] if other else []) if row.get("images/s") is not None}
    return [ran.get(_identity(row), row) for row in (own["rows"] if own else [])]


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("case", "form", "dtype"))


def verdict(value: float, limit: float, *, at_most: bool = True, why: str = "") -> str:
    """Whether a value keeps to its limit, and by how much it does not."""
    if (value <= limit) if at_most else (value >= limit):
        return "met"
    missed = f"missed by {abs(value / limit - 1):.0%}"
    return f"{missed}: {why}" if why else missed


def _row(goal: Goal, content: dict[str, Any] | None) -> dict[str, str]:
    row = {"goal": goal.about, "wanted": "at most " + goal.shape.format(goal.limit)}
    usable = content and (not goal.accelerator or not content["device"].startswith("CPU"))
    value = goal.found(content["rows"]) if usable and content else None
    if value is None:
        where = " on a GPU" if goal.accelerator else ""
        command = f"nox -s bench -- {goal.benchmark}{goal.options}{where}"
        return row | {"measured": "", "verdict": f"{NOT_RUN}: {command}"}
    return row | {"measured": goal.shape.format(value), "verdict": verdict(value, goal.limit, why=goal.why)}


def _steps(rows: Rows) -> list[dict[str, str]]:
    """The goals that the benchmark of the step holds itself to, which its rows state in words."""
    found = []
    for row in rows:
        if not row.get("goal"):
            continue
        key, _, limit = row["goal"].partition(" at least ")
        other = "" if row["form"] == "distill_lib" else f"{row['form']}, beside ours"
        kind = f", {row['dtype']}" if row.get("dtype") == "bfloat16" else ""
        about = f"step of {row['case']}{kind}: {other or key}"
        shape = "{:,.0f}" if float(limit) >= 100 else "{:.2f}"
        unit = f" {key}" if other else ""
        goal = {"goal": about, "wanted": f"at least {shape.format(float(limit))}{unit}"}
        value = row.get(key)
        if value is None:
            found.append(goal | {"measured": "", "verdict": f"{row['step']}: nox -s bench -- step"})
            continue
        measured = {"measured": f"{shape.format(value)}{unit}"}
        found.append(goal | measured | {"verdict": verdict(value, float(limit), at_most=False, why=_shares(row, rows))})
    return found


def _shares(row: dict[str, Any], rows: Rows) -> str:
    """How much of the machine's peak this library and the best of the others reach in the step of a row."""
    ran = [each for each in rows if each["case"] == row["case"] and each.get("share of peak")]
    shares = {each["form"]: each["share of peak"] for each in ran}
    ours = shares.pop("distill_lib", None)
    if ours is None or not shares:
        return ""
    best = max(shares, key=lambda form: shares[form])
    return f"of the measured peak our step reaches {ours:.0%}, the best of the others ({best}) {shares[best]:.0%}"
