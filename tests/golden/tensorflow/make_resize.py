"""Writes resize.npz and boxes.npz: what TensorFlow makes of a small photograph, and how it draws inception crops.

Run once, in an environment of its own: `pip install tensorflow-cpu scikit-learn pillow && python make_resize.py`.
TensorFlow 2.21.0 was used. Facts about the pipeline are those of the paper's released code: `resize_small` resizes the
shorter side by area, crops are resized bilinearly without antialias, aspects run from 0.75 to 1.33, and JPEGs are
decoded with TensorFlow's default, the fast integer DCT.
"""

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

HERE = Path(__file__).parent
EVALUATIONS = ((64, 56), (100, 96), (128, 100), (160, 128))  # shorter side, central crop; the file has 120 x 163 pixels
CROPS = ((0, 0, 120, 163, 48), (13, 41, 77, 60, 32), (50, 100, 30, 40, 64), (101, 7, 19, 15, 40))
SHAPES = ((375, 500), (500, 333))
DRAWS = 100_000
QUANTILES = np.linspace(0.01, 0.99, 99)


def photograph() -> bytes:
    """A part of a photograph by dany13 (CC BY) that scikit-learn ships, as a JPEG of 120 x 163 pixels."""
    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).resize((163, 120), Image.Resampling.LANCZOS).save(
        file, "JPEG", quality=92
    )
    return file.getvalue()


def rounded(image: tf.Tensor) -> np.ndarray:
    """To the nearest grey level."""
    return np.rint(image.numpy()).clip(0, 255).astype(np.uint8)


def resized(data: bytes) -> dict[str, np.ndarray]:
    """The pixels of every case."""
    whole = tf.io.decode_jpeg(data)
    found = {"jpeg": np.frombuffer(data, np.uint8), "whole": whole.numpy()}
    height, width = whole.shape[:2]
    for small, size in EVALUATIONS:
        scale = small / min(height, width)
        sides = round(height * scale), round(width * scale)
        area = tf.image.resize(whole, sides, method="area")
        corner = (sides[0] - size) // 2, (sides[1] - size) // 2
        found[f"evaluation/{small}/{size}"] = rounded(tf.image.crop_to_bounding_box(area, *corner, size, size))
    for top, left, high, wide, size in CROPS:
        part = tf.io.decode_and_crop_jpeg(data, (top, left, high, wide))
        shown = tf.image.resize(part, (size, size), method="bilinear", antialias=False)
        found[f"crop/{top}/{left}/{high}/{wide}/{size}"] = rounded(shown)
    return found


def drawn(shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Quantiles of area, aspect and place of inception crops of an image of this height and width."""

    def one(seed: tf.Tensor) -> tf.Tensor:
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            (*shape, 3),
            tf.zeros((0, 0, 4)),
            tf.stack([0, seed]),
            min_object_covered=0.0,
            area_range=(0.05, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], extent[:2]], 0)

    draw = tf.function(lambda: tf.map_fn(one, tf.range(DRAWS)))
    top, left, height, width = draw().numpy().astype(np.float64).T
    values = {
        "area": height * width / np.prod(shape),
        "aspect": width / height,
        "top": top / shape[0],
        "left": left / shape[1],
    }
    return {
        f"{shape[0]}/{shape[1]}/{key}": np.quantile(value, QUANTILES).astype(np.float32)
        for key, value in values.items()
    }


if __name__ == "__main__":
    np.savez_compressed(HERE / "resize.npz", **resized(photograph()))
    boxes = {key: value for shape in SHAPES for key, value in drawn(shape).items()}
    np.savez_compressed(HERE / "boxes.npz", quantiles=QUANTILES, **boxes)
