"""Whether the programs of a step compile for TPUs and GPUs, what they take there, and whether anything is amiss.

XLA compiles for a described TPU (with libtpu) or GPU (with JAX's CUDA plugin) on any Linux machine. Each case has a
process of an environment with both, because an XLA check that fails ends the process.
"""

import collections
import itertools
import json
import math
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from distill_lib import recipes
from distill_lib.bench import programs, tables, timing
from distill_lib.errors import DistillError, unknown
from distill_lib.recipes import Recipe

DATA = Path(__file__).parents[1] / "data"


class Target(NamedTuple):
    """Devices that programs are compiled for, and the GiB of each that programs may use."""

    platform: str
    topology: str
    gib: float

    def mesh(self) -> Mesh:
        """The devices along the axis "data"."""
        from jax.experimental import topologies

        text = (DATA / "h100_target.txtpb").read_text()  # what XLA has to know of "NVIDIA H100 80GB HBM3"
        cuda = {"topology_name": "h100", "topology": self.topology, "target_config": text}
        named: dict[str, Any] = cuda if self.platform == "cuda" else {"topology_name": self.topology}
        devices = topologies.get_topology_desc(platform=self.platform, **named).devices
        return Mesh(np.array(devices), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


TARGETS = {  # a TPU's compiler keeps 0.25 GiB of its 16 for itself; JAX takes three quarters of a GPU's by default
    "TPU v5e x 8": Target("tpu", "v5e:2x4", 15.75),
    "H100 x 8": Target("cuda", "1x1x8", 79.1),
}


class Case(NamedTuple):
    """Programs that are compiled: the smallest size that has them, a preset, its changes, and the programs' names."""

    size: str
    name: str
    preset: Sequence[str]
    changes: dict[str, Any]
    parts: Sequence[str] = ("views and teacher",)

    def recipe(self) -> Recipe:
        """What a run would be."""
        return recipes.get(*self.preset, **self.changes)


_TABLES = tomllib.loads((DATA / "compile_cases.toml").read_text(encoding="utf-8"))
SIZES = tuple(_TABLES)  # each has what stands before it, too
CASES = tuple(Case(size, **case) for size, cases in _TABLES.items() for case in cases)
NAMES = tuple(dict.fromkeys(case.name for case in CASES))
_HERE = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"} | {
    # libtpu would ask the network which machine this is, and wait
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-8", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip
_PLAIN_PRODUCTS = "--xla_gpu_enable_triton_gemm=false"
"""Of ViTs on GPUs: XLA finds no tiles for a product of attention and what follows it, and says so (JAX 0.10.2)."""
_WIDTHS = {"bf16": 2, "f16": 2, "u8": 1, "s8": 1, "pred": 1}  # bytes; of others four
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%?\S+ = (.+?) (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(",
    re.MULTILINE,
)
_CALLS_HOST = re.compile(r"\b(outfeed|infeed)\(|is_host_transfer=true|custom_call_target=\"[^\"]*callback[^\"]*\"")
_CONVOLUTION = re.compile(r"stablehlo\.convolution.*?: \(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x)*(\w+)>\)")


def measure(
    python: str = sys.executable,
    size: str = "usual",
    targets: Sequence[str] = tuple(TARGETS),
    cases: Sequence[str] = NAMES,
) -> timing.Rows:
    """Compiles the programs of a step for accelerators without having one, and checks what came out.

    `--python` is that of an environment with libtpu and JAX's CUDA plugin, which `nox -s compile` makes; `--size` is
    quick (the embedded networks), usual or full. The record is written after each case; other rows of it stay.

    Returns: a row a program; DistillError tells all of those that do not compile or fit, move whole batches between
    devices, copy their state, call the host, or compute in another dtype.
    """
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    rows, amiss = {_name(row): row for row in tables.rows("compile")}, list[str]()
    chosen = [case for case in CASES if SIZES.index(case.size) <= SIZES.index(size) and case.name in cases]
    for target, case in itertools.product(targets, chosen):
        made = {_name(row): row for row in _compiled(python, target, case)}
        amiss += [f"{name}: {row['problems']}" for name, row in made.items() if row["problems"]]
        rows = {name: row for name, row in (rows | made).items() if not row["problems"]}
        timing.write("compile", list(rows.values()))
    if amiss:
        raise DistillError(f"{len(amiss)} programs are not as they should be: {'; '.join(amiss)}.")
    return list(rows.values())


def _compiled(python: str, target: str, case: Case) -> timing.Rows:
    """The rows of one case, from a process of its own; what ended it becomes the problem of the program it was at."""
    recipe = case.recipe()
    about = {"case": case.name, "policy": recipe.policy, "target": target}
    own = _HERE | {"PYTHONPATH": str(Path(__file__).parents[2])}
    if "ViT" in case.name and target.startswith("H100"):
        own["XLA_FLAGS"] = _PLAIN_PRODUCTS
    command = [python, "-m", "distill_lib.bench.compile", str(CASES.index(case)), target]
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


def compiled(case: Case, target: str) -> Iterator[dict[str, Any]]:
    """Compiles a case, in the environment with the compilers: a row a program, whose `problems` may be empty."""
    recipe, mesh = case.recipe(), TARGETS[target].mesh()
    for part, (lower, limit, macs, leaves) in programs.lowered(recipe, mesh).items():
        if part in case.parts:
            row = {"program": part, "dtype": recipe.dtype, "batch": recipe.batch_size}
            row["analytic TFLOP"] = round(2e-12 * macs * recipe.batch_size / mesh.size, 4)
            yield row | check(lower(), TARGETS[target], dtype=recipe.dtype, limit=limit, leaves=leaves)


def check(lowered: Any, target: Target, *, dtype: str, limit: int, leaves: int) -> dict[str, Any]:
    """Compiles a program: what it takes, and whether dtype, bytes moved or arrays updated in place are amiss."""
    convolutions = {kind for pair in _CONVOLUTION.findall(lowered.as_text()) for kind in pair}
    began = time.perf_counter()
    program = lowered.compile()
    seconds = round(time.perf_counter() - began, 1)
    memory, counted, text = program.memory_analysis(), program.cost_analysis() or {}, program.as_text()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    gib = max(peak - memory.alias_size_in_bytes, 0) / 2**30
    (kinds, largest), donated = _collectives(text), len(re.findall(r"-alias\)", text.partition("\n")[0]))
    asked = {"bfloat16": "bf16", "float32": "f32"}[dtype]
    checks = {
        f"needs {gib:.3f} of {target.gib} GiB": gib >= target.gib,
        f"a collective moves {largest:,} bytes, and at most {limit:,} are expected": largest > limit,
        f"{donated} of {leaves} arrays of the state are updated in place": donated < leaves,
        "it calls the host": bool(_CALLS_HOST.search(text)),
        f"convolutions are in {sorted(convolutions)}, not {dtype} alone": bool(convolutions - {asked}),
    }
    return {
        "compile (s)": seconds,
        "peak (GiB)": round(gib, 3),
        "device (GiB)": target.gib,
        "fits": gib < target.gib,
        "TFLOP": round(counted.get("flops", 0) / 1e12, 4),
        "collectives": kinds,
        "largest (MB)": round(largest / 1e6, 4),
        "problems": "; ".join(problem for problem, amiss in checks.items() if amiss),
    }


def _collectives(text: str) -> tuple[str, int]:
    kinds, largest = collections.Counter[str](), 0
    for results, kind in _COLLECTIVE.findall(text):
        sizes = [
            _WIDTHS.get(number, 4) * math.prod(map(int, filter(None, sides.split(","))))
            for number, sides in re.findall(r"(\w+)\[([\d,]*)\]", results)
        ]
        kinds[kind] += 1
        largest = max(largest, sum(sizes) if kind == "all-reduce" else max(sizes))  # others list operands too
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none", largest


if __name__ == "__main__":
    for made in compiled(CASES[int(sys.argv[1])], sys.argv[2]):
        print(json.dumps(made), flush=True)
