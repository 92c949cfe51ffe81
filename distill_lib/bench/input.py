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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill_lib.bench import process, timing
from distill_lib.bench.timing import Timing, summary
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

_ROUNDS = """
import json, os, sys, time
folder, cores, batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
files = [open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))]

def used():  # CPU seconds of this process and of its workers
    import multiprocessing
    total = time.process_time()
    for child in multiprocessing.active_children():
        with open(f"/proc/{child.pid}/stat") as file:
            total += sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return total

def serve(stream):
    for _ in range(8):  # until all processes and threads are warm
        next(stream)
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        for _ in range(6):  # what was made in advance
            next(stream)
        wall, cpu = time.perf_counter(), used()
        for _ in range(batches):
            next(stream)
        print(json.dumps([time.perf_counter() - wall, used() - cpu]), flush=True)
"""

_OURS = (
    _ROUNDS
    + f"""
from distill_lib.bench.input import Files
from distill_lib.input_pipeline.stream import batches as start

options = {{"seed": 0, "batch_size": {BATCH}, "student_size": 224, "workers": 0 if cores == 1 else cores}}
options["kind"] = sys.argv[4]
with start(Files(files), **options) as stream:
    serve(stream)
"""
)

_TENSORFLOW = (
    _ROUNDS
    + f"""
import tensorflow as tf

form = sys.argv[4]

def view(data):
    box = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(data), tf.zeros((0, 0, 4)), area_range=(0.05, 1.0), min_object_covered=0.0,
        use_image_if_no_bounding_boxes=True,
    )
    if form == "plain":
        image = tf.slice(tf.io.decode_jpeg(data, channels=3), box.begin, box.size)
        image = tf.ensure_shape(image, (None, None, 3))
    else:
        crop = tf.concat([box.begin[:2], box.size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(data, crop, channels=3)
    image = tf.image.random_flip_left_right(tf.image.resize(image, (224, 224)))
    return tf.cast(image, tf.uint8)

options = tf.data.Options()
options.threading.private_threadpool_size = cores
options.threading.max_intra_op_parallelism = 1
data = tf.data.Dataset.from_tensor_slices(files).repeat().shuffle(100, seed=0)
data = data.map(view, num_parallel_calls=cores).batch({BATCH}).prefetch(2).with_options(options)
serve(iter(data))
"""
)


class Files:
    """Endlessly many examples out of a few files, as `stream.batches` reads them."""

    def __init__(self, files: list[bytes]) -> None:
        self.files = files

    def __len__(self) -> int:
        return 10_000

    def encoded(self, index: int) -> Any:
        """An example of no class."""
        from distill_lib.datasets import Encoded

        return Encoded(self.files[index % len(self.files)], 0, str(index))


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times all on one core and on all cores.

    Args:
        arguments: `--tensorflow PYTHON` or `--tensorflow install`, `--rounds N`, `--batches N`, `--quality Q ...`,
            `--kind threads` or `--kind processes` (the workers on several cores).

    Returns:
        A row for each quality, number of cores and form of tf.data: seconds an image of both (wall clock, and CPU with
        that of workers), images a second, and how many times as fast as tf.data this is.
    """
    parser = timing.parser(measure, rounds=7)
    parser.add_argument("--tensorflow", help="a Python that has TensorFlow, or `install` for a throw-away one")
    parser.add_argument("--batches", type=int, default=8, help=f"batches of {BATCH} images in each round")
    parser.add_argument("--quality", type=int, nargs="+", default=[75, 95])
    parser.add_argument("--kind", default=stream.WORKERS[0], choices=stream.WORKERS)
    options = parser.parse_args(arguments)
    rows = []
    with process.interpreter(options.tensorflow, "TensorFlow", "--tensorflow", ["tensorflow-cpu"]) as tensorflow:
        for quality in options.quality:
            for cores in dict.fromkeys((1, stream.cores())):
                rows += _rows(quality, cores, tensorflow, options)
    return rows


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
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        size, images = photographs(Path(folder), quality), options.batches * BATCH
        jobs = {"distill_lib": (sys.executable, _OURS, options.kind)}
        if tensorflow:
            jobs |= {form: (tensorflow, _TENSORFLOW, form) for form in FORMS}
        running = {
            name: stack.enter_context(_job(python, script, [folder, str(cores), str(options.batches), form]))
            for name, (python, script, form) in jobs.items()
        }
        spent: dict[str, list[list[float]]] = {name: [] for name in jobs}
        for _ in range(options.rounds):
            for name, job in running.items():
                spent[name].append([each / images for each in job.ask()])
    wall, cpu = ({name: summary([each[i] for each in rounds]) for name, rounds in spent.items()} for i in (0, 1))
    case = {"quality": quality, "kB": size, "cores": cores, "images a round": images}
    return [case | _compared(wall, cpu, form) for form in FORMS]


def _compared(wall: dict[str, Timing], cpu: dict[str, Timing], form: str) -> dict[str, Any]:
    """What is measured here beside a form of tf.data, or beside none."""
    ours, theirs = wall["distill_lib"], wall.get(form)
    return {
        "form": form,
        "distill_lib": ours,
        "tf.data": theirs or "no --tensorflow",
        "images/s": 1 / ours.median,
        "ratio": theirs.median / ours.median if theirs else None,
        "distill_lib CPU": cpu["distill_lib"],
        "tf.data CPU": cpu.get(form),
        "CPU ratio": cpu[form].median / cpu["distill_lib"].median if theirs else None,
    }


@contextlib.contextmanager
def _job(python: str, script: str, arguments: list[str]) -> Iterator[process.Job]:
    """A process that makes batches on demand; ready when it is given."""
    with tempfile.TemporaryDirectory() as place:  # spawned workers read the script again: it has to be a file
        path = Path(place) / "job.py"
        path.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in script.splitlines()))
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        command = [python, str(path), *arguments]
        with process.job(
            command, check="that --tensorflow names a Python that has TensorFlow", environment=quiet
        ) as job:
            yield job
