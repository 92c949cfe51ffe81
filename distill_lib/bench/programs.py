"""The programs of a training step and of evaluation, compiled for accelerators that need not be there.

XLA compiles for a described TPU (with libtpu) or GPU (with JAX's CUDA plugin) on any Linux machine. `bench.compile`
runs this module in an environment that has both, one case a process, because an XLA check that fails ends the process.
"""

from __future__ import annotations

import collections
import json
import math
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from distill_lib import models, sharding, views
from distill_lib.models import flops
from distill_lib.models.ensemble import Ensemble, Member
from distill_lib.train import step
from distill_lib.train.sources import Crops, Images
from distill_lib.train.state import state_shapes

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
WIDTHS = {"f32": 4, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "u8": 1, "s8": 1, "pred": 1}
_COLLECTIVE = re.compile(
    r"^\s*(?:ROOT )?%?\S+ = (.+?) (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?:-start)?\("
)
_CALLS_HOST = re.compile(r"\b(outfeed|infeed)\(|is_host_transfer=true|custom_call_target=\"[^\"]*callback[^\"]*\"")
_CONVOLUTION = re.compile(r"stablehlo\.convolution.*?: \(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x)*(\w+)>\)")


@dataclass(frozen=True)
class Case:
    """Networks and sizes of a run.

    Attributes:
        student: model name.
        teacher: model name.
        classes: length of the logits.
        side: height and width of the student's views, in pixels.
        batch: images a step, over all devices.
        channels: of an image.
        teacher_side: height and width of the teacher's views; None takes the student's.
        examples: images that lie on the devices; 0 where the host sends crops.
        optimizer: a name in `optim.OPTIMIZERS`.
        full: whether it is one of the large cases.
    """

    student: str
    teacher: str
    classes: int
    side: int
    batch: int
    channels: int = 3
    teacher_side: int | None = None
    examples: int = 0
    optimizer: str = "adam"
    full: bool = False


_FASHION: dict[str, Any] = {"classes": 10, "side": 28, "batch": 128, "channels": 1, "examples": 1_020}
_IMAGENET: dict[str, Any] = {"teacher": "bit_r152x2", "classes": 1_000, "side": 224, "batch": 4_096, "full": True}
CASES = {
    "fashion": Case("bit_r11w8", "bit_r11w24", **_FASHION),
    "fashion, BatchNorm": Case("mobilenet_v3_small_bn", "bit_r11w24", **_FASHION),
    "fashion, Shampoo": Case("bit_r11w8", "bit_r11w24", **_FASHION, optimizer="shampoo"),
    "ViT": Case("vit_ti16", "efficientnet_lite0", classes=1_000, side=224, batch=64),
    "flowers": Case("bit_r50x1", "bit_r152x2", classes=102, side=128, batch=512, full=True),
    "imagenet": Case("bit_r50x1", **_IMAGENET),
    "imagenet, teacher at 384": Case("bit_r50x1", **_IMAGENET, teacher_side=384),
    "imagenet, MobileNet": Case("mobilenet_v3_large_gn", **_IMAGENET),
    "imagenet, MobileNet BatchNorm": Case("mobilenet_v3_large_bn", **_IMAGENET),
    "imagenet, ViT": Case("vit_s16", **_IMAGENET),
    "imagenet, Shampoo": Case("bit_r50x1", **_IMAGENET, optimizer="shampoo"),
}


@dataclass(frozen=True)
class Target:
    """Devices that programs are compiled for.

    Attributes:
        platform: "tpu" or "cuda".
        topology: of the devices, as the platform names it.
        gib: memory of one of them that programs may use; the peak has to stay below.
    """

    platform: str
    topology: str
    gib: float

    def mesh(self) -> Mesh:
        """The devices along the axis "data"."""
        from jax.experimental import topologies

        options = {"target_config": H100} if self.platform == "cuda" else {}
        name = "h100" if self.platform == "cuda" else self.topology
        if self.platform == "cuda":
            options["topology"] = self.topology
        described = topologies.get_topology_desc(platform=self.platform, topology_name=name, **options)
        return Mesh(np.array(described.devices), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


TARGETS = {  # a TPU's compiler keeps 0.25 GiB of its 16 for itself; JAX takes three quarters of a GPU's by default
    "TPU v5e x 8": Target("tpu", "v5e:2x4", 15.75),
    "H100 x 8": Target("cuda", "1x1x8", 79.1),
}


def compiled(name: str, target: str, policy: str, dtype: str, parts: list[str]) -> Iterator[dict[str, Any]]:
    """Compiles programs of a case, one after the other.

    Args:
        name: a key of `CASES`.
        target: a key of `TARGETS`.
        policy: a key of `views.POLICIES` or `views.BASELINES`.
        dtype: that networks compute in.
        parts: names of programs, of those that `_programs` knows.

    Yields:
        A row for each: what was compiled, what it takes, and `problems`, empty if it is as it should be.
    """
    case, mesh = CASES[name], TARGETS[target].mesh()
    for part, (lower, limit, macs, leaves) in _programs(case, policy, dtype, mesh).items():
        if part in parts:
            row = {"case": name, "policy": policy, "target": target, "program": part, "dtype": dtype}
            facts = _compile(lower(), TARGETS[target], dtype=dtype, limit=limit, leaves=leaves)
            analytic = round(2e-12 * macs * case.batch / mesh.size, 4)
            yield row | {"batch": case.batch, "jax": jax.__version__, "analytic TFLOP": analytic} | facts


def _programs(case: Case, policy: str, dtype: str, mesh: Mesh) -> dict[str, tuple[Any, int, int, int]]:
    """By name: what lowers a program, bytes of its largest collective, multiply-adds an image, and arrays to donate."""
    student = models.create(case.student, case.classes, dtype)
    image = (case.side, case.side, case.channels)
    state = state_shapes(student, image, case.optimizer, mesh)
    labels = views.policy(policy).relation == "none"
    objective = step.Objective(labels=labels, optimizer=case.optimizer)
    split, whole = sharding.split(mesh), sharding.everywhere(mesh)
    settings = jax.tree.map(
        lambda number: _array((), number.dtype, whole),
        step.Settings(*(jnp.float32(0),) * 3, jnp.int32(0), jnp.int32(0), jnp.float32(0)),
    )
    lesson = step.Lesson(
        _array((case.batch, *image), jnp.float32, split),
        _array((case.batch, case.classes), jnp.float32, split),
    )
    # The gradients' sum; Shampoo gathers its roots besides. All else is one image that a roll sends on, and the like.
    kept = state.opt_state if case.optimizer == "shampoo" else state.variables
    gradients, image_bytes = _bytes((state.variables, kept)), 4 * math.prod(image) + 4 * case.classes
    cost_of_student, leaves = flops.macs(student, image), len(jax.tree.leaves(state))

    def learn(remat: bool) -> Any:
        program: Any = step.learn(student, objective, remat, mesh)
        return lambda: program.lower(state, settings, lesson)

    def evaluation() -> Any:
        crops = _array((case.batch, *image), jnp.uint8, split)
        variables = jax.tree.map(lambda leaf: _placed(leaf, whole), state.variables)
        ask = jax.jit(lambda variables, images: models.logits(student, variables, views.normalize(images)))
        return ask.lower(variables, crops)

    teacher, teach = _teach(case, policy, dtype, mesh)
    return {
        "views and teacher": (teach, image_bytes, teacher, 0),
        "student": (learn(False), gradients, 3 * cost_of_student, leaves),
        "student, rematerialised": (learn(True), gradients, 3 * cost_of_student, leaves),
        "evaluation": (evaluation, image_bytes, cost_of_student, 0),
    }


def _teach(case: Case, policy: str, dtype: str, mesh: Mesh) -> tuple[int, Any]:
    """Multiply-adds of a teacher's answer, and what lowers the first half of a step."""
    split, whole = sharding.split(mesh), sharding.everywhere(mesh)
    relation = views.policy(policy).relation
    network = models.create(case.teacher, case.classes, dtype)
    side = case.teacher_side or case.side
    shape = (side, side, case.channels)
    asks = relation in ("same", "independent")
    # zeros of NumPy, because BatchNorm is folded on the host
    drawn = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), models.shapes(network, shape))
    folded, variables = models.fold(network, drawn)
    placed = jax.tree.map(lambda leaf: _placed(leaf, whole), variables)
    teacher = Ensemble((Member(folded, case.teacher_side),)) if asks else None
    plan = step.Plan(policy, teacher, case.classes, case.batch, case.side, "batch", (0.05, 1.0), 0.0)
    key = _placed(jax.eval_shape(lambda: step.view_key(0)), whole)
    number, temperature = _array((), jnp.int32), _array((), jnp.float32)
    asked = (placed,) if asks else ()

    def targets(count: int, placement: Any) -> Any:
        if relation == "fixed":
            return _array((count, case.classes), jnp.float32, placement)
        return _array((count,), jnp.int32, placement)

    def crops(size: int) -> Any:
        return _array((case.batch, size, size, case.channels), jnp.uint8, split)

    program: Any = step.teach(plan)

    def lower() -> Any:
        if not case.examples:
            other = {side: crops(side)} if case.teacher_side or relation == "independent" else {}
            given: Any = Crops(crops(case.side), other, targets(case.batch, split))
            return program.lower(key, number, given, asked, temperature)
        images = _array((case.examples, case.side, case.side, case.channels), jnp.uint8, whole)
        indices = _array((case.batch,), jnp.int32, split)
        given = Images(images, targets(case.examples, whole), indices=indices)
        return program.lower(key, number, given, asked, temperature)

    return flops.macs(network, shape) if asks else 0, lower


def _compile(lowered: Any, target: Target, *, dtype: str, limit: int, leaves: int) -> dict[str, Any]:
    convolutions = {kind for pair in _CONVOLUTION.findall(lowered.as_text()) for kind in pair}
    began = time.perf_counter()
    program = lowered.compile()
    facts: dict[str, Any] = {"compile (s)": round(time.perf_counter() - began, 1)}
    memory, counted, text = program.memory_analysis(), program.cost_analysis() or {}, program.as_text()
    sizes = (memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes)
    peak = max(sum(sizes) - memory.alias_size_in_bytes, 0)
    facts |= {"peak (GiB)": round(peak / 2**30, 3), "device (GiB)": target.gib, "fits": peak < target.gib * 2**30}
    facts |= {"TFLOP": round(counted.get("flops", 0) / 1e12, 4), "moved (GB)": _moved(counted)}
    kinds, largest = _collectives(text)
    facts |= {"collectives": kinds, "largest (MB)": round(largest / 1e6, 4)}
    donated = len(re.findall(r"-alias\)", text.partition("\n")[0]))
    problems = [] if facts["fits"] else [f"needs {facts['peak (GiB)']} of {target.gib} GiB"]
    if largest > limit:
        problems.append(f"a collective moves {largest:,} bytes, and at most {limit:,} are expected")
    if donated < leaves:
        problems.append(f"{donated} of {leaves} arrays of the state are updated in place")
    if _CALLS_HOST.search(text):
        problems.append("it calls the host")
    if convolutions - {{"bfloat16": "bf16", "float32": "f32"}[dtype]}:
        problems.append(f"convolutions are in {sorted(convolutions)}, not {dtype} alone")
    return facts | {"in place": f"{donated} of {leaves}" if leaves else "", "problems": "; ".join(problems)}


def _moved(counted: dict[str, float]) -> float:
    return round(counted.get("bytes accessed", 0) / 1e9, 3)


def _collectives(text: str) -> tuple[str, int]:
    """How many of each kind a compiled program has, and the bytes of the largest array, or of all that are summed."""
    kinds, largest = collections.Counter[str](), 0
    for line in text.splitlines():
        if match := _COLLECTIVE.match(line):
            results, kind = match.groups()
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", results)
            sizes = [
                WIDTHS.get(number, 4) * math.prod(map(int, filter(None, sides.split(",")))) for number, sides in shapes
            ]
            kinds[kind] += 1
            largest = max(largest, sum(sizes) if kind == "all-reduce" else max(sizes))  # others list operands too
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return told or "none", largest


def _array(shape: tuple[int, ...], dtype: Any, placement: Any = None) -> Any:
    """What a program is told of an array in its place."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=placement)


def _placed(leaf: Any, placement: Any) -> Any:
    return _array(leaf.shape, leaf.dtype, placement)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


if __name__ == "__main__":
    case_name, target_name, policy_name, dtype_name, *part_names = sys.argv[1:]
    for row in compiled(case_name, target_name, policy_name, dtype_name, part_names):
        print(json.dumps(row), flush=True)
