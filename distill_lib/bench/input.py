"""Decoding with inception crops of 224 pixels, beside the same job in tf.data: images a second on one and on all cores.

The images are photographs that scikit-image and scikit-learn ship, as JPEGs of 500 x 375 pixels, ImageNet's mean size.
tf.data runs in an interpreter of its own, in two forms: `plain` decodes the whole image, cuts the crop out and resizes
it; `fused` has the operation that decodes only the crop. All are asked for rounds of images in turn, and stopped in
between. On a machine that others use too, the CPU time is the fairer number.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from distill_lib.bench import process, timing
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import stream

SIZE = (500, 375)  # width, height
# Not `package_images.FILES`, which an ImageNet teacher has something to say of: other files would be another
# measurement.
PHOTOGRAPHS = {
    "skimage.data": ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
    "sklearn.datasets": ("images/china.jpg", "images/flower.jpg"),
}
BATCH = 64
FORMS = ("plain", "fused")
GOAL = 1.5  # times as fast as plain tf.data on one core
CHECK = "that --tensorflow names a Python that has TensorFlow"


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times all on one core and on all cores.

    `--tensorflow` names a Python that has TensorFlow, or says `install` for a throw-away one; `--batches` is how many
    of 64 images a round has.

    Returns:
        A row for each quality, number of cores and form of tf.data: seconds an image of both (wall clock, and CPU with
        that of workers), images a second, and how many times as fast as tf.data this is.
    """
    defaults = {"tensorflow": None, "batches": 8, "quality": [75, 95]}
    options = timing.options(measure, arguments, rounds=7, **defaults)
    with process.interpreter(options.tensorflow, "TensorFlow", "--tensorflow", ["tensorflow-cpu"]) as tensorflow:
        return [
            row
            for quality in options.quality
            for cores in dict.fromkeys((1, stream.cores()))
            for row in _rows(quality, cores, tensorflow, options)
        ]


def cells(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows of a record for a page: wall-clock time an image, and the ratio to tf.data."""
    return [
        {
            "JPEG quality": f"{row['quality']} ({row['kB']:.0f} kB)",
            "cores": str(row["cores"]),
            "tf.data": row["form"],
            "its time": f"{1000 * row['tf.data'].median:.2f} ms",
            "ours": f"{1000 * row['distill_lib'].median:.2f} ms",
            "times as fast": f"{row['ratio']:.2f}",
        }
        for row in rows
        if row["ratio"]
    ]


def verdict(rows: list[dict[str, Any]]) -> str:
    """One sentence on the goal and on what was reached, from the rows of a record."""
    ratios = [row["ratio"] for row in rows if row["ratio"] and row["form"] == "plain" and row["cores"] == 1]
    if not ratios:
        return "There is no record of this comparison yet."
    reached = f"{min(ratios):.2f}" if len(ratios) == 1 else f"{min(ratios):.2f} to {max(ratios):.2f}"
    said = "is met" if min(ratios) >= GOAL else f"is missed by {1 - min(ratios) / GOAL:.0%}"
    return f"The goal, {GOAL:g} times as fast as plain tf.data on one core, {said}: reached is {reached}."


def photographs(folder: Path, quality: int) -> float:
    """Writes the photographs as JPEGs (4:2:0) into a folder; returns their mean size in kB."""
    from PIL import Image, ImageOps

    sizes = []
    for module, names in PHOTOGRAPHS.items():
        try:
            place = Path(importlib.import_module(module).__file__ or "").parent
        except ModuleNotFoundError:
            raise DistillError(f"{module} is not installed: pip install scikit-image scikit-learn.") from None
        for name in names:
            with Image.open(place / name) as picture:
                fitted = ImageOps.fit(picture.convert("RGB"), SIZE, Image.Resampling.LANCZOS)
            file = io.BytesIO()
            fitted.save(file, "JPEG", quality=quality, subsampling="4:2:0")
            (folder / f"{Path(name).stem}.jpg").write_bytes(file.getvalue())
            sizes.append(len(file.getvalue()) / 1000)
    return statistics.mean(sizes)


def _rows(quality: int, cores: int, tensorflow: str | None, options: argparse.Namespace) -> list[dict[str, Any]]:
    jobs = {"distill_lib": (sys.executable, "distill_input", "threads")}
    if tensorflow:
        jobs |= {form: (tensorflow, "tensorflow_input", form) for form in FORMS}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        size = photographs(Path(folder), quality)
        case = {"folder": folder, "cores": cores, "batch": BATCH, "side": 224, "warm_up": 8, "made_ahead": 6}
        running = {}
        for name, (python, module, form) in jobs.items():
            started = process.job(
                python, module, case | {"form": form}, check=CHECK, environment={"CUDA_VISIBLE_DEVICES": ""}
            )
            running[name] = stack.enter_context(started)
        spent = process.in_turn(running, dict.fromkeys(running, options.batches), options.rounds)
    clocks = ("", " CPU")
    seconds = {
        name + clock: timing.summary([times[number] / BATCH for times in rounds])
        for name, rounds in spent.items()
        for number, clock in enumerate(clocks)
    }
    about = {"quality": quality, "kB": size, "cores": cores, "images a round": options.batches * BATCH}
    return [about | _compared(seconds, form) for form in FORMS]


def _compared(seconds: dict[str, timing.Timing], form: str) -> dict[str, Any]:
    """What is measured here beside a form of tf.data, or beside none."""
    ours, cpu, theirs, their_cpu = (
        seconds["distill_lib"],
        seconds["distill_lib CPU"],
        seconds.get(form),
        seconds.get(f"{form} CPU"),
    )
    return {
        "form": form,
        "distill_lib": ours,
        "tf.data": theirs or "no --tensorflow",
        "images/s": 1 / ours.median,
        "ratio": theirs.median / ours.median if theirs else None,
        "distill_lib CPU": cpu,
        "tf.data CPU": their_cpu,
        "CPU ratio": their_cpu.median / cpu.median if their_cpu else None,
    }
