"""Batches of crops by tf.data, which decodes all of an image (the form "plain") or only the crop ("fused")."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf


def prepare(case: dict[str, Any]) -> tuple[Callable[[], Any], None]:
    """A function that makes the next batch of the files of a folder; no facts."""
    encoded = [path.read_bytes() for path in sorted(Path(case["folder"]).iterdir())]
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
    batches = iter(data)
    return lambda: next(batches), None
