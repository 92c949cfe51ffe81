"""Compiles the programs of one case for one target, and checks what came out: `python -m compiled.check CASE TARGET`.

It runs in an environment with the compilers, and prints a row of JSON for each program.
"""

from __future__ import annotations

import collections
import json
import math
import re
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from compiled import programs
from distill_lib import recipes
from distill_lib.recipes import Recipe

HERE = Path(__file__).parent


class Target(NamedTuple):
    """Devices that programs are compiled for, and the GiB of each that programs may use."""

    platform: str
    topology: str
    gib: float

    def mesh(self) -> Mesh:
        """The devices along the axis "data"."""
        from jax.experimental import topologies

        text = (HERE / "h100_target.txtpb").read_text()  # what XLA has to know of "NVIDIA H100 80GB HBM3"
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


_TABLES = tomllib.loads((HERE / "cases.toml").read_text(encoding="utf-8"))
SIZES = tuple(_TABLES)  # each has what stands before it, too
CASES = tuple(Case(size, **case) for size, cases in _TABLES.items() for case in cases)
NAMES = tuple(dict.fromkeys(case.name for case in CASES))
_WIDTHS = {"bf16": 2, "f16": 2, "u8": 1, "s8": 1, "pred": 1}  # bytes; of others four
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%?\S+ = (.+?) (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(",
    re.MULTILINE,
)
_CALLS_HOST = re.compile(r"\b(outfeed|infeed)\(|is_host_transfer=true|custom_call_target=\"[^\"]*callback[^\"]*\"")
_CONVOLUTION = re.compile(r"stablehlo\.convolution.*?: \(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x)*(\w+)>\)")


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
