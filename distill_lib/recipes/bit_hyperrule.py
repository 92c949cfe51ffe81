"""BiT's hyper-rule: a network that was trained on ImageNet-21k is fine-tuned into a teacher, without any search.

Most settings are the same for every task. The length of the schedule and mixup follow from the number of training
images. The paper of this study does not say how its teachers were fine-tuned; they are BiT's, and this is BiT's rule.

References:
    Kolesnikov et al., "Big Transfer (BiT): General visual representation learning", ECCV 2020 (arXiv 1912.11370v3),
    sections 2.2 and 3.3. Its code: google-research/big_transfer, bit_hyperrule.py and input_pipeline_tf2_or_jax.py.
    Names of the released teachers: google-research/big_vision, configs/proj/distill/common.py.
"""

from __future__ import annotations

from typing import Any

from distill_lib.datasets.cards import CARDS
from distill_lib.recipes.paper import Preset

START = "BiT-M-R152x2"
SMALL, MEDIUM = 20_000, 500_000
"""Training images below which a task is small, and below which it is medium."""
BATCH = 512

FIXED: dict[str, Any] = {
    "student": "bit_r152x2",
    "teacher": "none",
    "start": START,
    "batch_size": BATCH,
    "temperature": 1,
    "learning_rate": 3e-3,
    "weight_decay": 0,
    "optimizer": "sgd_unclipped",
    "schedule": "staircase",
}

_SOURCE = "BiT, sections 2.2 and 3.3 (arXiv 1912.11370v3)"
_ASSUMED = (
    "How the paper's teachers were fine-tuned is not said: BiT's own rule is taken. Its code neither clips gradients "
    "nor rounds the momentum (`sgd_unclipped`). The learning rate is for 512 images: .003 times `batch_size` / 512."
)
_WARMUP = "BiT's paper has no warm-up of fine-tuning; the {} steps are its code's."
_STAIRS = (
    "The learning rate falls after 30, 60 and 90 % of the steps, as in BiT's paper; where the steps are 500, its code "
    "has 40, 60 and 80 %."
)
_CROPS = (
    "The released code calls the paper's teachers of the small sets `rc128`: random crops of 128 pixels. That is the "
    "rule's row for small images, resized to 160 and cropped to 128, and is taken. For images above 96 x 96 pixels, as "
    "these are, the rule itself has 448 and 384, and its code 512 and 480: `resolution` 384 comes near, with crops of "
    "0.8 of a side instead of 0.86."
)
_CROPS_IMAGENET = (
    "The released code calls the paper's teachers `ic224` and `rc384`. The first is taken: inception crops of 224 "
    "pixels. `policy` labels/rc/mix with `resolution` 384 comes near the second, with crops of 0.8 of a side instead "
    "of the rule's 0.86 (448 and 384)."
)
_SHOWN = "Evaluation shows the central crop, as for students; BiT's shows the whole image, squeezed to a square."


def schedule(images: int) -> tuple[int, int]:
    """Steps of fine-tuning on so many training images, and how many of them are warm-up."""
    if images < SMALL:
        return 500, 100
    return (10_000 if images < MEDIUM else 20_000), 500


def preset(dataset: str) -> Preset:
    """How a teacher of one of the paper's data sets is made."""
    images = CARDS[dataset].counts["train"]
    steps, warmup = schedule(images)
    crops, mixed = "labels" if dataset == "imagenet" else "labels/rc", images >= SMALL
    settings = FIXED | {"epochs": steps * BATCH / images, "warmup_steps": warmup}
    settings |= {"policy": f"{crops}/mix", "mixup_beta": 0.1} if mixed else {"policy": crops}
    seen = _CROPS_IMAGENET if dataset == "imagenet" else _CROPS
    stairs = () if mixed else (_STAIRS,)
    return Preset(settings, _SOURCE, (_ASSUMED, _WARMUP.format(warmup), *stairs, seen, _SHOWN))
