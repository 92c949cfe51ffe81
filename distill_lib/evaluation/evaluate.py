"""A saved student, or a teacher, judged on a data set.

distill evaluate results/imagenet_fast/RUN/student.npz imagenet_v2
distill evaluate R50x1_224 imagenet_v2 --teacher R152x2_T_224
"""

from pathlib import Path
from typing import Any

from distill_lib import datasets, models, records, teachers
from distill_lib.errors import DistillError, aligned
from distill_lib.evaluation import metrics
from distill_lib.evaluation.eval_sets import EvalSet
from distill_lib.input_pipeline.splits import Streamed
from distill_lib.recipes import presets

TRAINED_ON = {"imagenet_v2": "imagenet", "imagenet_real": "imagenet"}
"""Sets for evaluation only, and the set whose presets say how their images are shown."""


def evaluate(
    network: str,
    dataset: str,
    *,
    teacher: str | None = None,
    split: str = "test",
    resolution: int | None = None,
    side: float | None = None,
    limit: int | None = None,
    mock: bool = False,
) -> dict[str, Any]:
    """Judges a network on the first `limit` images of a split, or all; `mock` ones are invented.

    `network`, and `teacher` that it is compared with, are a student.npz or whatever else `teachers.load` takes.
    `resolution`, in pixels, is for networks without their own, and `side` that of the central square that is shown, as
    a fraction of the shorter side; None takes the record's or the preset's. Returns `images` (that count: broken ones
    and those without labels do not), `resolution`, `side` and `metrics.metrics`; with a teacher also `cka`.
    DistillError if a name is unknown, a file absent or damaged, or network, data and numbers do not fit together.
    """
    card, path = datasets.get(dataset), Path(network)
    record = records.load(path.parent) if path.suffix == ".npz" else None
    usual = presets.tables(TRAINED_ON.get(dataset, dataset))[0] | (record["recipe"] if record else {})
    pixels = usual["resolution"] if resolution is None else resolution
    centre = usual.get("eval_side", 1.0) if side is None else side
    if not (1 <= pixels <= models.MOST_PIXELS and 0 < centre <= 1):
        raise DistillError(
            f"resolution must be from 1 to {models.MOST_PIXELS} and side a fraction above 0, got {pixels} and "
            f"{centre:g}."
        )
    eval_set = EvalSet(Streamed(datasets.load(card, split, limit=limit, mock=mock)), centre)
    names = [network] if teacher is None else [network, teacher]
    networks = [
        teachers.load(name, num_classes=card.num_classes, channels=card.channels, resolution=pixels) for name in names
    ]
    logits = [eval_set.logits(each.ensemble, each.variables, pixels) for each in networks]
    labels, *logits = eval_set.sound(eval_set.labels, *logits)
    sizes = networks[0].ensemble.sizes(pixels)
    result = {"images": int(metrics.counted(labels).sum()), "resolution": " + ".join(map(str, sizes)), "side": centre}
    result |= metrics.metrics(logits[0], labels, *logits[1:])
    if teacher is not None and all(each.has_features for each in networks):
        features = [eval_set.features(each.ensemble, each.variables, pixels) for each in networks]
        result["cka"] = metrics.linear_cka(*eval_set.sound(*features))
    return result


def table(result: dict[str, Any]) -> str:
    """The result of `evaluate` as lines of text."""
    return aligned((name, f"{value:.4g}" if isinstance(value, float) else f"{value}") for name, value in result.items())
