"""`nox -s compile`: the programs of all cases for all targets, their table and its record."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import timing
from compiled.check import CASES, NAMES, SIZES, TARGETS, Case
from distill_lib.errors import DistillError, Parser, command_line
from distill_lib.report import benchmarks
from distill_lib.report.benchmarks import Rows

_HERE = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"} | {
    # libtpu would ask the network which machine this is, and wait
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip
_PLAIN_PRODUCTS = "--xla_gpu_enable_triton_gemm=false"
"""Of ViTs on GPUs: XLA finds no tiles for a product of attention and what follows it, and says so (JAX 0.10.2)."""


@command_line
def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles and checks programs, of a size for targets; DistillError tells all of those that are amiss."""
    parser = Parser(prog="nox -s compile --", description="Compiles the programs of a step for accelerators.")
    parser.add_argument("size", nargs="?", default="usual", choices=SIZES, help="each has what stands before it, too")
    parser.add_argument("--python", required=True, help="of an environment with the compilers; nox names it")
    parser.add_argument("--targets", nargs="+", default=tuple(TARGETS), choices=TARGETS, metavar="NAME")
    parser.add_argument("--cases", nargs="+", default=NAMES, choices=NAMES, metavar="NAME")
    options = parser.parse_args(arguments)
    rows = measure(options.python, options.size, options.targets, options.cases)
    print(f"{benchmarks.as_text(rows)}\n\nwritten to {timing.write('compile', rows)}")


def measure(python: str, size: str, targets: Sequence[str], cases: Sequence[str] = NAMES) -> Rows:
    """Compiles the programs of cases for targets; the record is written after each case, other rows of it stay.

    `python` is that of an environment with libtpu and JAX's CUDA plugin. Returns a row a program; DistillError tells
    all of those that do not compile or fit, move whole batches between devices, copy their state, call the host, or
    compute in another dtype.
    """
    rows, amiss = {_name(row): row for row in benchmarks.rows("compile")}, list[str]()
    chosen = [case for case in CASES if SIZES.index(case.size) <= SIZES.index(size) and case.name in cases]
    for target, case in itertools.product(targets, chosen):
        made = {_name(row): row for row in _compiled(python, target, case)}
        amiss += [f"{name}: {row['problems']}" for name, row in made.items() if row["problems"]]
        rows = {name: row for name, row in (rows | made).items() if not row["problems"]}
        timing.write("compile", list(rows.values()))
    if amiss:
        raise DistillError(f"{len(amiss)} programs are not as they should be: {'; '.join(amiss)}.")
    return list(rows.values())


def _compiled(python: str, target: str, case: Case) -> Rows:
    """The rows of one case, from a process of its own; what ended it becomes the problem of the program it was at."""
    recipe = case.recipe()
    about = {"case": case.name, "policy": recipe.policy, "target": target}
    own = _HERE | {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3]))}
    if "ViT" in case.name and target.startswith("H100"):
        own["XLA_FLAGS"] = _PLAIN_PRODUCTS
    command = [python, "-m", "compiled.check", str(CASES.index(case)), target]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, errors="replace")
    rows = [about | json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        lines = done.stderr.splitlines()
        telling = [line for line in lines if "Check failed" in line or "Error: " in line]  # of XLA, or of a traceback
        reason = (telling or lines or ["nothing was said"])[-1].strip()[:300]
        stopped = {"program": (*case.parts, "its end")[len(rows)], "dtype": recipe.dtype}
        rows.append(about | stopped | {"problems": f"it does not compile ({reason})"})
    for row in rows:
        print(f"{_name(row)}: {row['problems'] or 'as it should be'}", flush=True)
    return rows


def _name(row: dict[str, Any]) -> str:
    return ", ".join(row[key] for key in ("target", "case", "policy", "dtype", "program"))


if __name__ == "__main__":
    sys.exit(main())
