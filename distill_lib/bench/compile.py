"""Whether the programs of a step compile for TPUs and GPUs, what they take there, and whether anything is amiss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from distill_lib import views
from distill_lib.bench import timing
from distill_lib.errors import DistillError

TARGETS = ("TPU v5e x 8", "H100 x 8")
TEACHING, STUDENT, REMAT, EVALUATION = "views and teacher", "student", "student, rematerialised", "evaluation"
ALL = (TEACHING, STUDENT, REMAT, EVALUATION)
Plan = tuple[str, str, str, tuple[str, ...]]  # case, policy, dtype, programs

QUICK: tuple[Plan, ...] = (("fashion", "mix", "bfloat16", ALL), ("fashion", "ind/ic", "float32", (TEACHING,)))
USUAL: tuple[Plan, ...] = (
    *QUICK,
    *(("fashion", policy, "float32", (TEACHING,)) for policy in views.POLICIES if policy != "ind/ic"),
    ("fashion", "labels", "float32", (TEACHING, STUDENT)),
    ("fashion, BatchNorm", "same/ic", "bfloat16", (STUDENT, EVALUATION)),
    ("fashion, Shampoo", "mix", "float32", (STUDENT,)),
    ("ViT", "mix", "bfloat16", ALL),
)
FULL: tuple[Plan, ...] = (
    *USUAL,
    ("flowers", "mix", "bfloat16", ALL),
    ("imagenet", "mix", "bfloat16", ALL),
    ("imagenet, teacher at 384", "mix", "bfloat16", (TEACHING,)),
    ("imagenet, MobileNet", "mix", "bfloat16", (STUDENT, EVALUATION)),
    ("imagenet, MobileNet BatchNorm", "mix", "bfloat16", (STUDENT, EVALUATION)),
    ("imagenet, ViT", "mix", "bfloat16", (STUDENT, EVALUATION)),
    ("imagenet, Shampoo", "mix", "bfloat16", (STUDENT,)),
)
PLANS = {"quick": QUICK, "usual": USUAL, "full": FULL}
_HERE = {  # libtpu would ask the network which machine this is, and wait
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_PLAIN_PRODUCTS = "--xla_gpu_enable_triton_gemm=false"
"""Of ViTs on GPUs: XLA finds no tiles for a product of attention and what follows it, and says so (JAX 0.10.2)."""


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Compiles the programs of a step for accelerators without having one, and checks what came out.

    Args:
        arguments: `--python PATH` (of an environment with libtpu and JAX's CUDA plugin; `nox -s compile` makes it),
            `--size quick|usual|full`, `--target NAME`, `--case NAME`.

    Returns:
        A row a program, with those of the record that were not compiled again; their `problems` are empty. The record
        is written after each case, since the paper's networks take minutes.

    Raises:
        DistillError: if a program does not compile, does not fit, moves whole batches between devices, copies its
            state, calls the host, or computes in another dtype; all of them are told.
    """
    parser = timing.parser(measure)
    parser.add_argument("--python", default=sys.executable, help="of an environment with libtpu and JAX's CUDA plugin")
    parser.add_argument("--size", default="usual", choices=PLANS, help="quick (the embedded networks), usual or full")
    parser.add_argument("--target", choices=TARGETS, help="for this one alone")
    parser.add_argument("--case", choices=sorted({case for case, *_ in FULL}), help="this one alone")
    options = parser.parse_args(arguments)
    content = timing.read("compile")
    rows = {_name(row): row for row in content["rows"]} if content else {}
    amiss: list[str] = []
    for target in [options.target] if options.target else TARGETS:
        for plan in PLANS[options.size]:
            if options.case in (None, plan[0]):
                made = {_name(row): row for row in _compiled(options.python, target, plan)}
                amiss += [f"{name}: {row['problems']}" for name, row in made.items() if row["problems"]]
                rows = {name: row for name, row in (rows | made).items() if not row["problems"]}
                timing.write("compile", list(rows.values()))
    if amiss:
        raise DistillError(f"{len(amiss)} programs are not as they should be: {'; '.join(amiss)}.")
    return list(rows.values())


def _compiled(python: str, target: str, plan: Plan) -> list[dict[str, Any]]:
    """The rows of one case, from a process of its own; what ended it becomes the problem of the program it was at."""
    case, policy, dtype, programs = plan
    command = [python, "-m", "distill_lib.bench.programs", case, target, policy, dtype, *programs]
    own = _HERE | {"PYTHONPATH": str(Path(__file__).parents[2])}
    if "ViT" in case and target.startswith("H100"):
        own["XLA_FLAGS"] = _PLAIN_PRODUCTS
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, errors="replace")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        stopped = (*programs, "its end")[len(rows)]
        at = {"case": case, "policy": policy, "target": target, "program": stopped, "dtype": dtype}
        rows.append(at | {"problems": f"it does not compile ({_reason(done.stderr)})"})
    for row in rows:
        print(f"{_name(row)}: {row['problems'] or 'as it should be'}", flush=True)
    return rows


def _reason(errors: str) -> str:
    """The line that says why: that of a failed check of XLA, or the last one of a traceback."""
    lines = errors.strip().splitlines() or ["nothing was said"]
    telling = [line for line in lines if "Check failed" in line or "Error: " in line]
    return (telling or [line for line in lines if not line.startswith(" ")] or lines)[-1].strip()[:300]


def _name(row: dict[str, Any]) -> str:
    return f"{row['target']}, {row['case']}, {row['policy']}, {row['dtype']}, {row['program']}"
