"""Decoding with inception crops of 224 pixels, beside the same job in tf.data: images a second on one and on all cores.

The images are photographs that scikit-image and scikit-learn ship, as JPEGs of 500 x 375 pixels, ImageNet's mean size.
On a machine that others use too, the CPU time is the fairer number.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_lib.bench import process, timing
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import stream

SIZE = (500, 375)  # width, height
# Not `package_images.FILES`, which an ImageNet teacher has something to say of: others would be another measurement.
PHOTOGRAPHS = {
    "skimage.data": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
    "sklearn.datasets": ("images/china.jpg", "images/flower.jpg"),
}
BATCH = 64
FORMS = ("plain", "fused")


def measure(
    rounds: int = 7, tensorflow: str | None = None, batches: int = 8, quality: Sequence[int] = [75, 95]
) -> list[dict[str, Any]]:
    """Times all on one core and on all cores.

    `--tensorflow` names a Python that has TensorFlow. `--batches` is how many of 64 images a round has. tf.data has two
    forms: `plain` decodes the whole image, cuts the crop out and resizes it; `fused` decodes only the crop.

    Returns:
        A row for each quality, number of cores and form of tf.data: seconds an image of both (wall clock, and CPU with
        that of workers), images a second, and how many times as fast as tf.data this is.
    """
    process.check_python(tensorflow, "--tensorflow")
    return [
        row
        for each in quality
        for cores in dict.fromkeys((1, stream.cores()))
        for row in _rows(each, cores, tensorflow, batches, rounds)
    ]


def photographs(folder: Path, quality: int) -> float:
    """Writes the photographs as JPEGs (4:2:0) into a folder; returns their mean size in kB."""
    from PIL import Image, ImageOps

    for module, names in PHOTOGRAPHS.items():
        try:
            place = Path(importlib.import_module(module).__file__ or "").parent
        except ModuleNotFoundError:
            raise DistillError(f"{module} is not installed: pip install scikit-image scikit-learn.") from None
        for name in names:
            with Image.open(place / name) as picture:
                fitted = ImageOps.fit(picture.convert("RGB"), SIZE, Image.Resampling.LANCZOS)
            fitted.save(folder / f"{Path(name).stem}.jpg", quality=quality, subsampling="4:2:0")
    sizes = [path.stat().st_size / 1000 for path in folder.iterdir()]
    return sum(sizes) / len(sizes)


def _rows(quality: int, cores: int, tensorflow: str | None, batches: int, rounds: int) -> list[dict[str, Any]]:
    forms = {"threads": sys.executable} | (dict.fromkeys(FORMS, tensorflow) if tensorflow else {})
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        about = {"quality": quality, "kB": photographs(Path(folder), quality), "cores": cores}
        case = {"folder": folder, "cores": cores, "batch": BATCH, "side": 224, "warm_up": 8, "made_ahead": 6}
        jobs = {
            form: stack.enter_context(
                process.Job(python, "input_batch", case | {"form": form}, "--tensorflow", CUDA_VISIBLE_DEVICES="")
            )
            for form, python in forms.items()
        }
        spent = process.in_turn(jobs, dict.fromkeys(jobs, batches), rounds)
    seconds = {
        form: [timing.summary([time / BATCH for time in times]) for times in zip(*each, strict=True)]
        for form, each in spent.items()
    }
    about["images a round"] = batches * BATCH
    return [about | {"form": form} | _compared(seconds["threads"], seconds.get(form)) for form in FORMS]


def _compared(ours: list[timing.Timing], theirs: list[timing.Timing] | None) -> dict[str, Any]:
    """What is measured here beside a form of tf.data, or beside none: by the clock, and of all processors."""
    (wall, cpu), (their_wall, their_cpu) = ours, theirs or (None, None)
    return {
        "distill_lib": wall,
        "tf.data": their_wall or "no --tensorflow",
        "images/s": 1 / wall.median,
        "ratio": their_wall and their_wall.median / wall.median,
        "distill_lib CPU": cpu,
        "tf.data CPU": their_cpu,
        "CPU ratio": their_cpu and their_cpu.median / cpu.median,
    }
