"""A saved student, or a teacher, judged on a data set.

    distill evaluate results/imagenet_fast/RUN/student.npz imagenet_v2
    distill evaluate R50x1_224 imagenet_v2 --teacher R152x2_T_224

Images are decoded on the way and shown as evaluation shows them: at the resolution and central square of the student's
own record where it lies beside it, else at the network's own resolution, else as the data set's preset says. A record
whose images were in memory was made from smaller ones (see the chapter on data), so its accuracy may differ a little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill_lib import datasets, models, records, teachers
from distill_lib.errors import DistillError
from distill_lib.evaluation import eval_sets, metrics
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
    """Judges a network on a split of a data set.

    Args:
        network: a student.npz, or whatever else `teachers.load` takes.
        dataset: a data set with as many classes.
        teacher: another network, likewise, that the first is compared with.
        split: "train", "validation" or "test".
        resolution: pixels to render at, for networks without their own; None takes the record's or the preset's.
        side: of the central square that is shown, as a fraction of the shorter side; None as above.
        limit: the first so many images only.
        mock: invented images.

    Returns:
        `images` (that count: broken ones and those without labels do not), `resolution` (pixels) and `side` in use, and
        the metrics of `metrics.metrics`; with a teacher also `cka`, of the features of the first
        `eval_sets.FEATURE_IMAGES`.

    Raises:
        DistillError: a name is unknown, a file is absent or damaged, or network, data and numbers do not fit together.
    """
    card = datasets.get(dataset)
    usual = presets.tables(TRAINED_ON.get(dataset, dataset))[0] | _recorded(network)
    pixels = usual["resolution"] if resolution is None else resolution
    centre = usual.get("eval_side", 1.0) if side is None else side
    if not (1 <= pixels <= models.MOST_PIXELS and 0 < centre <= 1):
        raise DistillError(
            f"resolution must be from 1 to {models.MOST_PIXELS} and side a fraction above 0, got {pixels} and "
            f"{centre:g}."
        )
    eval_set = eval_sets.open_split(dataset, split, centre, mock=mock, limit=limit)
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


def _recorded(network: str) -> dict[str, Any]:
    """What the record beside a student says of how it was judged there; empty where there is none."""
    path = Path(network)
    record = records.load(path.parent) if path.suffix == ".npz" else None
    return {name: record["recipe"][name] for name in ("resolution", "eval_side")} if record else {}


def table(result: dict[str, Any]) -> str:
    """The result of `evaluate` as lines of text."""
    width = max(map(len, result))
    lines = {name: f"{value:.4g}" if isinstance(value, float) else f"{value}" for name, value in result.items()}
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())
