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
CLASS = {"form": "one program for each student", "students": 8}


@dataclass(frozen=True)
class Goal:
    """The most that one number of a record may be; `options` are those of the benchmark's command."""

    about: str
    benchmark: str
    limit: float
    key: str
    rows: dict[str, Any]  # that hold it: their values
    read: Callable[[list[float]], float] = lambda values: values[-1]
    shape: str = "{:.2f}"
    accelerator: bool = False  # whether only a record from one counts
    options: str = ""
    why: str = ""  # it is missed

    def found(self, rows: Rows) -> float | None:
        """The number, of a timing the median; None where the rows do not hold it."""
        values = [row.get(self.key) for row in rows if self.rows.items() <= row.items()]
        numbers = [value.median if isinstance(value, timing.Timing) else value for value in values if value is not None]
        return self.read(numbers) if numbers else None


GOALS = (
    Goal("8 students of the embedded study, of the time of 8 runs", "sweep", 0.65, "of as many runs", CLASS),
    Goal(
        "8 students R50x1 with teacher R152x2, of the time of one",
        *("sweep", 2.7, "of as many runs", CLASS),
        read=lambda values: 8 * values[-1],
        accelerator=True,
        options=" --dataset flowers --variant fast --forms 1 --made-up",
    ),
    Goal(
        "training loop beside its compiled step, of a step of 50 ms",
        *("loop", 0.02, "share at 50 ms", {"kind": "loop"}),
        read=max,
        shape="{:.2%}",
    ),
    Goal(
        "checkpoints, of a run of R50x1",
        *("loop", 0.01, "share", {"kind": "checkpoint", "case": "bit_r50x1"}),
        shape="{:.2%}",
    ),
    Goal(
        "start to the end of the first step, of a second run (s)",
        *("loop", 10.0, "first step", {"kind": "start", "case": "second run"}),
        shape="{:.1f}",
        why="most of it is importing, reading and tracing; compiled programs come from the cache",
    ),
    *(
        Goal(
            f"8 students by {policy}, of the time of 8 runs in compiled PyTorch",
            *("study", 0.65, "times as long"),
            {"case": f"embedded, {policy}, 8 students", "form": cases.COMPILED},
            read=lambda values: 1 / values[-1],
        )
        for policy in ("mix", "same/ic")
    ),
)


def table(results: Path | None = None) -> pd.DataFrame:
    """A row a goal: goal, wanted, measured, and the verdict; what was not measured names the command that does."""
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
    return [_step(row, rows) for row in rows if row.get("goal")]


def _step(row: dict[str, Any], rows: Rows) -> dict[str, str]:
    key, _, text = row["goal"].partition(" at least ")
    limit, value, ours = float(text), row.get(key), row["form"] == "distill_lib"
    kind = ", bfloat16" if row.get("dtype") == "bfloat16" else ""
    about = f"step of {row['case']}{kind}: " + (key if ours else f"{row['form']}, beside ours")
    shape = ("{:,.0f}" if limit >= 100 else "{:.2f}") + ("" if ours else f" {key}")
    goal = {"goal": about, "wanted": f"at least {shape.format(limit)}"}
    if value is None:
        return goal | {"measured": "", "verdict": f"{row['step']}: nox -s bench -- step"}
    judged = verdict(value, limit, at_most=False, why=_shares(row, rows))
    return goal | {"measured": shape.format(value), "verdict": judged}


def _shares(row: dict[str, Any], rows: Rows) -> str:
    """How much of the machine's peak this library and the best of the others reach in the step of a row."""
    ran = [each for each in rows if each["case"] == row["case"] and each.get("share of peak")]
    shares = {each["form"]: each["share of peak"] for each in ran}
    ours = shares.pop("distill_lib", None)
    if ours is None or not shares:
        return ""
    best = max(shares, key=lambda form: shares[form])
    return f"of the measured peak our step reaches {ours:.0%}, the best of the others ({best}) {shares[best]:.0%}"
