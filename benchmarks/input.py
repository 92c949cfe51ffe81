"""Decoding with inception crops of 224 pixels, beside the same job in tf.data: images a second on one and on all cores.

The images are photographs that scikit-image and scikit-learn ship, as JPEGs of 500 x 375 pixels, ImageNet's mean size.
On a machine that others use too, the CPU time is the fairer number.
"""

import contextlib
import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from benchmarks import process, timing
from benchmarks.process import Place
from distill_lib import datasets, recipes
from distill_lib.datasets import package_images
from distill_lib.input_pipeline import stream
from distill_lib.report.benchmarks import Rows

SIZE = (500, 375)  # width, height
# Not `package_images.FILES`, which an ImageNet teacher has something to say of: others would be another measurement.
PHOTOGRAPHS = {
    "skimage/data": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
BATCH = 64
OURS, FORMS = "threads", ("plain", "fused")


def measure(
    rounds: int = 7, tensorflow: str | None = None, batches: int = 8, quality: Sequence[int] = [75, 95]
) -> Rows:
    """Times all on one core and on all cores.

    `--tensorflow` names a Python that has TensorFlow. `--batches` is how many of 64 images a round has. tf.data has two
    forms: `plain` decodes the whole image, cuts the crop out and resizes it; `fused` decodes only the crop.

    Returns: for each quality, number of cores and form of tf.data seconds an image of both (wall clock, and CPU with
    that of workers), images a second, and how many times as fast as tf.data this is.
    """
    places = {OURS: Place(__name__)} | dict.fromkeys(FORMS, Place("tf_data", tensorflow, "--tensorflow"))
    cases = itertools.product(quality, dict.fromkeys((1, stream.cores())))
    return [row for case in cases for row in _rows(*case, places, batches, rounds)]


def photographs(folder: Path, quality: int) -> float:
    """Writes the photographs as JPEGs (4:2:0) into a folder; returns their mean size in kB."""
    for place, names in PHOTOGRAPHS.items():
        package, _, inside = place.partition("/")
        for name in names:
            picture = Image.fromarray(package_images.read_file(package, f"{inside}/{name}"))
            fitted = ImageOps.fit(picture, SIZE, Image.Resampling.LANCZOS)
            fitted.save(folder / f"{Path(name).stem}.jpg", quality=quality, subsampling="4:2:0")
    return statistics.mean(path.stat().st_size / 1000 for path in folder.iterdir())


def _rows(quality: int, cores: int, places: dict[str, Place], batches: int, rounds: int) -> Rows:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        about: dict[str, Any] = {"quality": quality, "kB": photographs(Path(folder), quality), "cores": cores}
        case = {"folder": folder, "cores": cores, "batch": BATCH, "side": 224, "warm_up": 8, "made_ahead": 6}
        jobs = process.start(stack, places, case, CUDA_VISIBLE_DEVICES="")
        spent = process.in_turn(jobs, dict.fromkeys(jobs, batches), rounds)
    clocks = {form: zip(*each, strict=True) for form, each in spent.items()}
    seconds = {form: [timing.summary(time / BATCH for time in each) for each in both] for form, both in clocks.items()}
    wall, cpu = seconds.pop(OURS)
    about |= {"images a round": batches * BATCH, "images/s": 1 / wall.median}
    about |= {"distill_lib": wall, "distill_lib CPU": cpu}
    rows = []
    for form, (their_wall, their_cpu) in seconds.items():
        row = {"form": form, "tf.data": their_wall, "ratio": their_wall.median / wall.median}
        rows.append(about | row | {"tf.data CPU": their_cpu, "CPU ratio": their_cpu.median / cpu.median})
    return rows or [about]


def prepare(case: dict[str, Any]) -> tuple[Callable[[], Any], None]:
    """A function that makes the next batch of the files of a folder, in a process of its own; no facts."""
    files = [{"image": path.read_bytes(), "label": 0} for path in sorted(Path(case["folder"]).iterdir())]
    rows = files * 1_000  # as if they were many
    source = datasets.Source(datasets.get("imagenet"), "train", rows, len(rows), None)
    recipe = recipes.get("imagenet", "fast", batch_size=case["batch"], resolution=case["side"])
    batches = stream.batches(source, recipe, workers=0 if case["cores"] == 1 else case["cores"])
    return lambda: next(batches), None
