"""Batches of crops: this library's "threads", or tf.data, which decodes all ("plain") or only the crop ("fused")."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def prepare(case: dict[str, Any]) -> tuple[Callable[[], Any], None]:
    """Keeps this process to so many cores; a function that makes the next batch of the files of a folder, no facts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-case["cores"] :])
    encoded = [path.read_bytes() for path in sorted(Path(case["folder"]).iterdir())]
    batches = _ours(case, encoded) if case["form"] == "threads" else _tensorflow(case, encoded)
    return lambda: next(batches), None


def _ours(case: dict[str, Any], encoded: list[bytes]) -> Any:
    from distill_lib import datasets, recipes
    from distill_lib.input_pipeline import stream

    rows = [{"image": image, "label": 0} for image in encoded] * 1_000  # as if they were many
    source = datasets.Source(datasets.get("imagenet"), "train", rows, len(rows), None)
    recipe = recipes.get("imagenet", "fast", batch_size=case["batch"], resolution=case["side"])
    return (crops for _, crops in stream.batches(source, recipe, workers=0 if case["cores"] == 1 else case["cores"]))


def _tensorflow(case: dict[str, Any], encoded: list[bytes]) -> Any:
    tf: Any = importlib.import_module("tensorflow")  # of another Python: this library has none
    size = (case["side"], case["side"])

    def view(data: Any) -> Any:
        nothing, shape = tf.zeros((0, 0, 4)), tf.image.extract_jpeg_shape(data)
        area = {"area_range": (0.05, 1.0), "min_object_covered": 0.0, "use_image_if_no_bounding_boxes": True}
        box = tf.image.sample_distorted_bounding_box(shape, nothing, **area)
        if case["form"] == "plain":
            image = tf.slice(tf.io.decode_jpeg(data, channels=3), box.begin, box.size)
            image = tf.ensure_shape(image, (None, None, 3))
        else:
            image = tf.image.decode_and_crop_jpeg(data, tf.concat([box.begin[:2], box.size[:2]], 0), channels=3)
        return tf.cast(tf.image.random_flip_left_right(tf.image.resize(image, size)), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = case["cores"]
    options.threading.max_intra_op_parallelism = 1
    data = tf.data.Dataset.from_tensor_slices(encoded).repeat().shuffle(100, seed=0)
    data = data.map(view, num_parallel_calls=case["cores"]).batch(case["batch"]).prefetch(2).with_options(options)
    return iter(data)
