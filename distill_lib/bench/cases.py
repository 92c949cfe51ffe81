"""What the benchmark of the step measures: networks, batches and goals, and the check that jobs do the same work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_lib.errors import DistillError
from distill_lib.input_pipeline import stream

CHECKED = 2  # images whose logits are compared
RECIPE = {"learning_rate": 0.003, "weight_decay": 3e-4, "temperature": 10.0, "steps": 20_000, "warmup_steps": 1_500}

ROUNDING = {"float32": 1e-3, "bfloat16": 0.05}  # of logits, relative to the largest


@dataclass(frozen=True)
class Case:
    """What is measured."""

    name: str
    student: str
    teacher: str | None  # None learns from labels
    classes: int
    batch: int
    side: int  # of what is shown, in pixels
    colours: int
    renders: bool  # whether crop and mirroring are part of the step; else the host crops
    forms: tuple[str, ...]  # the peers
    calls: int  # steps in each round
    goals: dict[str, float]  # least ratios to peers; of "distill_lib" images a second, or below 1 share of the peak
    dtype: str = "float32"  # of this library and PyTorch; big_vision is released in float32
    accelerator: bool = False  # whether the case wants one, or wants none
    mixes: bool = True  # images, where there is a teacher
    students: int = 1  # of a class that shares a teacher here; peers take as many runs

    @property
    def policy(self) -> str:
        """Function matching, consistent teaching, or labels."""
        if not self.teacher:
            return "labels"
        return "mix" if self.mixes else "same/ic"

    def work(self, macs: dict[str, int], *, shared: bool) -> int:
        """Multiply-accumulates of an image in a step of all students, who may share the teacher's answer."""
        return 3 * self.students * macs["student"] + (1 if shared else self.students) * macs.get("teacher", 0)


PLAIN, FOLDED, COMPILED = "PyTorch, plain", "PyTorch, folded teacher", "PyTorch, compiled"
_PAPER = ("bit_r50x1", "bit_r152x2", 102)
_SIZES: dict[str, Any] = {"batch": 128, "side": 28, "colours": 1, "renders": True}
_SMALL = _SIZES | {"forms": (PLAIN, COMPILED), "calls": 20}
_PAIR = ("bit_r11w8", "bit_r11w24", 10)
_CLASS: dict[str, Any] = _SMALL | {"forms": (COMPILED,), "calls": 5, "goals": {}, "students": 8}
CASES = {
    "paper": Case(
        *("R152x2 to R50x1", *_PAPER, 8, 128, 3, False, ("big_vision", PLAIN, FOLDED), 1),
        {"big_vision": 1.3},
    ),
    "labels": Case("embedded, labels", "bit_r11w8", None, 10, **_SMALL, goals={"distill_lib": 2600}),
    "mix": Case("embedded, mix", *_PAIR, **_SMALL, goals={"distill_lib": 1770}),
    "mix_8": Case("embedded, mix, 8 students", *_PAIR, **_CLASS),
    "same_8": Case("embedded, same/ic, 8 students", *_PAIR, **_CLASS, mixes=False),
    "accelerator": Case(
        *("R152x2 to R50x1", *_PAPER, 256, 128, 3, False, ("big_vision", PLAIN, FOLDED), 5),
        {"distill_lib": 0.45, "big_vision": 2.0},
        dtype="bfloat16",
        accelerator=True,
    ),
}


def describe(case: Case, batch: int, folder: Path) -> dict[str, Any]:
    """What jobs are told of a case: networks as numbers, and files with their weights and with images; all random."""
    from distill_lib import models

    draw, about = np.random.default_rng(0), {}
    shape = (case.side, case.side, case.colours)
    for role, name in (("student", case.student), ("teacher", case.teacher)):
        if name is None:
            continue
        model, path = models.create(name, case.classes), folder / f"{role}.npz"
        np.savez(path, **drawn(draw, model, shape))
        numbers = {field: getattr(model, field) for field in ("stages", "width", "groups", "stem")}
        about[role] = {"name": name, "weights": str(path)} | numbers
    count = 8 * batch if case.renders else batch
    images = folder / "images.npy"
    np.save(images, draw.integers(0, 256, (count, *shape), np.uint8))
    # A grey frame, because big_vision pads its max-pool with -infinity and this library with zeros.
    frame = case.side // 16
    inner = draw.uniform(-1, 1, (CHECKED, case.side - 2 * frame, case.side - 2 * frame, case.colours))
    np.save(folder / "check.npy", np.pad(inner.astype(np.float32), ((0, 0), (frame, frame), (frame, frame), (0, 0))))
    fields = ("classes", "side", "colours", "policy", "renders", "dtype", "students")
    facts = {name: getattr(case, name) for name in fields} | {"roles": list(about)}
    facts |= {"images": str(images), "check": str(folder / "check.npy")}
    sizes = {"batch": batch, "threads": stream.cores(), "area": [0.25, 1.0]}
    return about | facts | sizes | RECIPE


def drawn(draw: np.random.Generator, model: Any, image: tuple[int, int, int]) -> dict[str, Any]:
    """Random weights by name: scales of 1, biases of 0, and kernels that keep the size of what passes through them."""
    from distill_lib import models, weights

    def leaf(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if not name.endswith("kernel"):
            return np.full(shape, float(name.endswith("scale")), np.float32)
        return draw.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[:-1])))

    shapes = weights.flatten(models.shapes(model, image)["params"])
    return {name: leaf(name, about.shape) for name, about in shapes.items()}


def difference(case: Case, form: str, ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest difference of logits of the same images, relative to the largest logit.

    Raises:
        DistillError: if the devices or the networks differ: in parameters, in multiply-accumulates where a peer counts
            them, or in logits by more than rounding.
    """
    for fact in ("device", "parameters", "macs"):
        if theirs.get(fact, ours[fact]) != ours[fact]:
            raise DistillError(f"{form} does other work in {case.name}: {fact} {theirs[fact]} instead of {ours[fact]}.")
    pairs = [(np.array(ours["logits"][role]), np.array(theirs["logits"][role])) for role in ours["logits"]]
    largest = float(np.max([np.abs(said - wanted).max() / np.abs(wanted).max() for wanted, said in pairs]))
    if not largest <= ROUNDING[case.dtype]:
        raise DistillError(f"{form} does other work in {case.name}: its logits differ by {largest:.2g}.")
    return largest
