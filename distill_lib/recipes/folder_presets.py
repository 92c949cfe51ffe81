"""Presets of a folder of pictures: they follow from the number of training images, and take minutes rather than days.

Not in the paper, which has no set so small. A teacher is fine-tuned from the embedded ImageNet network, since few
images are too few to train one; a student that two CPU cores can train learns from it.
"""

from __future__ import annotations

from typing import Any

from distill_lib.recipes.paper import Preset

NOTE = "Length, batch and warm-up follow the number of training images."
COMMON: dict[str, Any] = {
    "policy": "mix",
    "student": "bit_r14w8",
    "teacher": "none",
    "resolution": 128,
    "temperature": 2.0,
    "learning_rate": 1e-2,
    "weight_decay": 1e-4,
    "crop_area": (0.25, 1.0),
    "eval_side": 0.875,
    "evaluations": 10,
}
TEACHER: dict[str, Any] = {
    "policy": "labels",
    "student": "efficientnet_lite0",
    "start": "imagenet_lite0",
    "temperature": 1.0,
    "learning_rate": 3e-4,
}
LENGTHS = {"teacher": (3_000, 3), "fast": (10_000, 3), "medium": (40_000, 10), "long": (160_000, 30)}
"""Of each preset, images that are shown at least, and passes over the training images at least."""
BATCHES = (16, 32, 64, 128, 256)
STEPS_PER_EPOCH = 16  # at least, where the batch can be that small
WARMUP = 0.05  # of the steps


def presets(images: int) -> dict[str, Preset]:
    """The presets for a number of training images, by name."""
    batch = max((size for size in BATCHES if size * STEPS_PER_EPOCH <= images), default=BATCHES[0])
    return {name: _preset(name, images, min(batch, images)) for name in ("fast", "medium", "long", "teacher")}


def _preset(name: str, images: int, batch: int) -> Preset:
    shown, passes = LENGTHS[name]
    epochs = max(passes, round(shown / images))
    settings = {"epochs": epochs, "batch_size": batch, "warmup_steps": int(WARMUP * epochs * images / batch)}
    return Preset(settings | (TEACHER if name == "teacher" else {}), notes=(NOTE,))
