"""A step of this library, as the training loop does it: a lesson, then the move of each student."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

PEAK_SIDE = {"cpu": 1024, "gpu": 8192, "tpu": 8192}  # of the matrices whose product is taken as the device's peak


def prepare(case: dict[str, Any]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Loads the case's networks and images; see `distill_lib.bench.cases.describe` for what a case holds.

    Returns:
        The function of a step, and facts: version, device, parameters, multiply-accumulates of an image, logits of the
        check images, and the measured peak of the device in floating-point operations a second.
    """
    import jax
    import numpy as np

    from distill_lib import models
    from distill_lib.models.ensemble import Ensemble, Member
    from distill_lib.train import state as train_state
    from distill_lib.train import step
    from distill_lib.weights import load_npz

    shape = (case["side"], case["side"], case["colours"])
    nets = {role: models.create(case[role]["name"], case["classes"], case["dtype"]) for role in case["roles"]}
    weights = {role: {"params": load_npz(case[role]["weights"])} for role in nets}
    images, shown = np.load(case["images"]), np.load(case["check"])
    facts = _facts(case, nets, shape)
    answer = jax.jit(models.logits, static_argnums=0)
    frozen: tuple[Member, ...] = ()
    variables: tuple[models.Variables, ...] = ()
    if "teacher" in nets:
        model, folded = models.fold(nets["teacher"], weights.pop("teacher"))
        frozen, variables = (Member(model),), jax.device_put((folded,))
    said = {"student": answer(nets["student"], weights["student"], shown)}
    if frozen:
        said["teacher"] = answer(frozen[0].model, variables[0], shown)
    facts["logits"] = {role: np.asarray(logits).tolist() for role, logits in said.items()}

    start = weights["student"]
    states = [train_state.initial_state(nets["student"], 0, shape, start=start) for _ in range(case["students"])]
    numbers: list[Any] = [np.float32(case[name]) for name in ("learning_rate", "weight_decay", "temperature")]
    settings = jax.device_put(step.Settings(*numbers, *(np.int32(case[name]) for name in ("steps", "warmup_steps"))))
    learn = step.learn(nets["student"], step.Objective(labels=not frozen))
    lessons = _lessons(case, Ensemble(frozen) if frozen else None, images, variables)

    def run() -> list:
        lesson = next(lessons)
        states[:] = [learn(state, settings, lesson) for state in states]
        return jax.block_until_ready(states)

    return run, facts


def _facts(case: dict[str, Any], nets: dict[str, Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    import jax

    from distill_lib.models import flops

    return {
        "version": f"jax {jax.__version__}",
        "device": jax.default_backend(),
        "parameters": {role: flops.parameters(net, shape) for role, net in nets.items()},
        "macs": {role: flops.macs(net, shape) for role, net in nets.items()},
        "peak": _peak(case["dtype"]),
    }


def _lessons(case: dict[str, Any], teacher: Any, images: Any, variables: tuple) -> Iterator[Any]:
    """Lessons from images on the device, or from crops of the host: then mixup alone is part of the step."""
    import jax
    import numpy as np

    from distill_lib.input_pipeline import sampler
    from distill_lib.train import step
    from distill_lib.train.sources import Crops, Images, Source

    plan = step.Plan(
        policy=case["policy"],
        teacher=teacher,
        num_classes=case["classes"],
        batch_size=case["batch"],
        resolution=case["side"],
        mixup="batch",
        crop_area=tuple(case["area"]),
        whole=0.0,
    )
    teach = step.teach(plan)
    labels, temperature = np.arange(len(images)) % case["classes"], np.float32(case["temperature"])
    key, whole, variables = jax.device_put((step.view_key(0), Images(images, labels), variables))
    for number in itertools.count():
        if case["renders"]:
            indices = sampler.batch_indices(0, number, case["batch"], len(images))
            source: Source = whole._replace(indices=jax.device_put(indices))
        else:
            source = jax.device_put(Crops(images, {}, labels))
        yield teach(key, np.int32(number), source, variables, temperature)


def _peak(dtype: str) -> float:
    """Floating-point operations a second in a product of two large square matrices: the best of ten."""
    import jax
    import jax.numpy as jnp

    side = PEAK_SIDE[jax.default_backend()]
    one = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(one, one))
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        jax.block_until_ready(product(one, one))
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)
