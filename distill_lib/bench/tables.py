"""Records of benchmarks as the book shows them: tables, and single numbers for its sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from distill_lib.bench import scaling, timing
from distill_lib.bench.cases import COMPILED, FOLDED
from distill_lib.bench.compile import TEACHING
from distill_lib.records import NOTHING

Rows = list[dict[str, Any]]
SMALL, LARGE, TEACHER, LARGE_TEACHER = "bit_r11w8", "bit_r50x1", "bit_r11w24", "bit_r152x2"
SHARES = ("share", "share of peak", "share at 50 ms", "left on the table", "of as many runs", "rest of the mass")
RATES = ("FLOP/s", "bytes/s")  # shown in GFLOP/s and GB/s
KERNEL_WORTH = 0.2  # of a step has to be left on the table before a kernel is written by hand


def rows(benchmark: str, results: Path | None = None, **wanted: Any) -> Rows:
    """Rows of a record that have these values; none where there is no record."""
    content = timing.read(benchmark, results)
    found = content["rows"] if content else []
    return [row for row in found if all(row.get(name) == value for name, value in wanted.items())]


def provenance(*benchmarks: str, results: Path | None = None) -> str:
    """Where and when benchmarks were run, or how to run them."""
    contents = {name: timing.read(name, results) for name in benchmarks}
    return " ".join(
        timing.provenance(content) if content else f"No run: drawn from what the benchmark {name} measures."
        for name, content in contents.items()
    )


def table(shown: Rows, columns: dict[str, str] | None = None) -> pd.DataFrame:
    """Rows of a record as text; columns are titles by key, and without them all that say anything."""
    keys = columns or {key: key for row in shown for key in row if any(one.get(key) is not None for one in shown)}
    cells = timing.cells([{keys[key]: _readable(key, row.get(key)) for key in keys} for row in shown])
    return pd.DataFrame(cells)


def compiled(results: Path | None = None) -> pd.DataFrame:
    """What was compiled for accelerators; of policies, which differ in their views alone, function matching."""
    shown = [row for row in rows("compile", results) if row["program"] != TEACHING or row["policy"] == "mix"]
    shown.sort(key=lambda row: (row["target"], row["case"]))
    columns = (
        "for",
        "networks",
        "dtype",
        "images",
        "program",
        "GiB of a device",
        "TFLOP",
        "between devices",
        "seconds",
    )
    cells = [
        {
            "for": row["target"],
            "networks": row["case"],
            "dtype": row["dtype"],
            "images": f"{row['batch']:,}",
            "program": row["program"],
            "GiB of a device": f"{row['peak (GiB)']:.2f} of {row['device (GiB)']:g}",
            "TFLOP": f"{row['analytic TFLOP']:.3g}" + (f", XLA {row['TFLOP']:.3g}" if row["TFLOP"] else ""),
            "between devices": row["collectives"] + (f", {row['largest (MB)']:.3g} MB" if row["largest (MB)"] else ""),
            "seconds": f"{row['compile (s)']:.0f}",
        }
        for row in shown
    ]
    return pd.DataFrame(cells, columns=columns)


def facts(results: Path | None = None) -> dict[str, str]:
    """Single numbers as text; each says that there are no records yet where it has none."""
    found: dict[str, str] = {}
    for name, (benchmark, wanted, read) in FACTS.items():
        chosen = rows(benchmark, results, **wanted)
        found[name] = read(chosen) if chosen else NOTHING
    return found


def about_memory(results: Path | None = None) -> str:
    """What another student costs in memory and what rematerialisation saves of the paper's student, in sentences."""
    content, found = timing.read("memory", results), facts(results)
    if content is None:
        return "There are no records yet; `nox -s bench -- memory` makes them."
    text = (
        f"A student more costs {found['memory-student']}; its parameters and optimiser are {found['memory-state']}. "
        f"At the largest batch of the figure rematerialisation keeps {found['kept-again']} instead of {found['kept']}, "
        f"and the compiled program asks for {found['program-again']} instead of {found['program']}."
    )
    if not content["device"].startswith("CPU"):
        return text
    return (
        f"{text} The option is meant for accelerators, whose compilers schedule for memory. XLA orders operations on a "
        "CPU without regard to memory, and may do the second computation long before it is needed."
    )


def about_classes(results: Path | None = None) -> str:
    """What a class of eight takes beside eight runs of compiled PyTorch, in a sentence."""
    taken = []
    for policy in ("mix", "same/ic"):
        chosen = rows("study", results, case=f"embedded, {policy}, 8 students", form=COMPILED)
        if chosen and chosen[-1]["times as long"]:
            taken.append(f"{1 / chosen[-1]['times as long']:.2f} times as long by {policy}")
    if not taken:
        return "How a class stands beside that was not measured yet: `nox -s bench -- study --torch PYTHON`."
    return (
        f"Beside eight runs of compiled PyTorch with the same networks, steps, batch and views, a class of eight takes "
        f"{' and '.join(taken)}. What the eight processes need to start and to compile is not counted."
    )


def _readable(key: str, value: Any) -> Any:
    """A value as a table has it: blank where there is none, shares in percent, and rates in thousand millions."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return value
    if key in SHARES:
        return f"{100 * value:.{0 if abs(value) >= 0.1 else 1}f} %"
    return value / 1e9 if key in RATES else value


def _percent(key: str) -> Callable[[Rows], str]:
    return lambda chosen: f"{100 * chosen[-1][key]:.2g} %"


def _scaled(key: str, factor: float, unit: str) -> Callable[[Rows], str]:
    def text(chosen: Rows) -> str:
        value = chosen[-1][key]
        value = value.median if isinstance(value, timing.Timing) else value
        return f"{factor * value:,.3g} {unit}"

    return text


def _products(chosen: Rows) -> str:
    share = sum(row["share"] for row in chosen if row["case"] in ("convolutions", "matrix products"))
    return f"{100 * share:.0f} %"


def _left(chosen: Rows) -> str:
    share = chosen[-1]["left on the table"]
    return f"{100 * share:.0f} %{'' if share < KERNEL_WORTH else ' (so it is worth writing)'}"


def _each_student(chosen: Rows) -> str:
    line = scaling.fit([row["students"] for row in chosen], [row["peak (MB)"] for row in chosen])
    return f"{line.slope:,.0f} MB"


def _network(name: str) -> tuple[str, dict[str, Any], Callable[[Rows], str]]:
    return "roofline", {"kind": "network", "case": name, "dtype": "float32"}, _percent("share of peak")


def _beside_ours(case: str, form: str = COMPILED) -> tuple[str, dict[str, Any], Callable[[Rows], str]]:
    """The time of another program's step as a share of ours."""
    return "step", {"case": case, "form": form, "dtype": "float32"}, lambda chosen: _times(chosen[-1]["times as long"])


def _times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f} times"


def _largest(key: str) -> Callable[[Rows], str]:
    return lambda chosen: f"{max(chosen, key=lambda row: row['batch'])[key]:,.0f} MB"


_BATCHES = {"axis": "batch size", "student": LARGE}
FACTS: dict[str, tuple[str, dict[str, Any], Callable[[Rows], str]]] = {
    "peak-float32": ("roofline", {"case": "float32 matrix product"}, _scaled("FLOP/s", 1e-9, "GFLOP/s")),
    "peak-bfloat16": ("roofline", {"case": "bfloat16 matrix product"}, _scaled("FLOP/s", 1e-9, "GFLOP/s")),
    "peak-bytes": ("roofline", {"case": "triad"}, _scaled("bytes/s", 1e-9, "GB/s")),
    "torch-labels": _beside_ours("embedded, labels"),
    "torch-mix": _beside_ours("embedded, mix"),
    "torch-large": _beside_ours("R152x2 to R50x1", FOLDED),
    "reached-small": _network(f"{SMALL}, loss and gradient"),
    "reached-teacher": _network(f"{TEACHER}, forward"),
    "reached-large": _network(f"{LARGE}, loss and gradient"),
    "reached-large-teacher": _network(f"{LARGE_TEACHER}, forward"),
    "norm-small": ("profile", {"model": SMALL, "case": "without GroupNorm"}, _percent("share")),
    "norm-large": ("profile", {"model": LARGE, "case": "without GroupNorm"}, _percent("share")),
    "left-small": ("profile", {"model": SMALL, "case": "without GroupNorm"}, _left),
    "left-large": ("profile", {"model": LARGE, "case": "without GroupNorm"}, _left),
    "standard-small": ("profile", {"model": SMALL, "case": "without standardisation"}, _percent("share")),
    "standard-large": ("profile", {"model": LARGE, "case": "without standardisation"}, _percent("share")),
    "products-small": ("profile", {"model": SMALL, "kind": "operations"}, _products),
    "batch-fixed": ("scaling", {"axis": "batch size"}, _scaled("intercept", 1e3, "ms")),
    "batch-each": ("scaling", {"axis": "batch size"}, _scaled("slope", 1e6, "µs")),
    "students-fixed": ("scaling", {"axis": "students"}, _scaled("intercept", 1e3, "ms")),
    "students-each": ("scaling", {"axis": "students"}, _scaled("slope", 1e3, "ms")),
    "memory-student": ("memory", {"axis": "class size", "student": LARGE}, _each_student),
    "memory-state": ("memory", {"axis": "class size", "student": LARGE}, _scaled("state (MB)", 1, "MB")),
    "kept": ("memory", _BATCHES | {"remat": False}, _largest("kept (MB)")),
    "kept-again": ("memory", _BATCHES | {"remat": True}, _largest("kept (MB)")),
    "program": ("memory", _BATCHES | {"remat": False}, _largest("program (MB)")),
    "program-again": ("memory", _BATCHES | {"remat": True}, _largest("program (MB)")),
    "loop-few": ("loop", {"kind": "loop"}, lambda chosen: _scaled("overhead (s)", 1e3, "ms")(chosen[:1])),
    "loop-many": ("loop", {"kind": "loop"}, _scaled("overhead (s)", 1e3, "ms")),
    "start-first": ("loop", {"kind": "start", "case": "first run"}, _scaled("first step", 1, "s")),
    "start-second": ("loop", {"kind": "start", "case": "second run"}, _scaled("first step", 1, "s")),
}
