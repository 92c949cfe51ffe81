"""What cannot work is told by the look-up of a recipe, which loads neither data nor networks."""

from __future__ import annotations

from typing import Any

import pytest

from distill_lib import recipes
from distill_lib.errors import DistillError


@pytest.mark.parametrize(
    ("dataset", "overrides", "message"),
    [
        ("flowers", {"temperature": 0}, "temperature must be from"),
        ("imagenet", {"student": "vit_s16", "resolution": 100}, "vit_s16 takes images of whole patches.*16 divides"),
        ("flowers", {"student": "resnet50"}, "unknown model 'resnet50'"),
        ("imagenet", {"ensemble": "probabilities"}, "R152x2_T_224 is one: name others after ' \\+ '"),
        ("imagenet", {"teacher": "R152x2_T_224 + R152x2_T_224"}, "teacher R152x2_T_224 is named twice"),
        ("flowers", {"ensemble": "median"}, "unknown ensemble 'median'.*Valid: logits, probabilities"),
        ("flowers", {"dtype": "float16"}, "unknown dtype 'float16'.*Valid: float32, bfloat16"),
        ("flowers", {"teacher": "fashoin"}, "unknown teacher 'fashoin'. Did you mean 'fashion'"),
        ("flowers", {"teacher": "R152x2_T_flowers128 +"}, "unknown teacher ''"),
        ("flowers", {"teacher": "R152x2_T_flowers128@0"}, "unknown teacher 'R152x2_T_flowers128@0'"),
        ("pets", {"teacher": "R152x2_T_flowers128"}, "R152x2_T_flowers128 knows 102 classes, and pets has 37"),
        ("imagenet", {"teacher": "AugReg_S16_224@100"}, "vit_s16 takes images of whole patches.*got 100"),
        ("flowers", {"batch_size": 1021}, r"batch_size 1021 is larger than the data \(1020 training images\)"),
        ("flowers", {"batch_size": 1}, "policy mix mixes two images of a batch"),
        ("pets", {"transfer_set": "pets"}, "transfer_set pets is the data set itself"),
        ("pets", {"transfer_set": "fodo"}, "unknown transfer_set 'fodo'. Did you mean 'food'"),
        ("pets", {"transfer_set": "imagenet_v2"}, "unknown transfer_set"),
        ("pets", {"transfer_set": "food", "policy": "labels"}, "a transfer_set needs a policy with a teacher"),
        ("flowers", {"epochs": 100}, "199 steps, not more than the 1500 warm-up"),
        ("food", {"train_images": 600}, "117 steps, not more than the 1500 warm-up"),
        ("pets", {"transfer_set": "digits", "epochs": 300}, "1053 steps, not more than the 1500 warm-up"),
    ],
)
def test_impossible_combinations_are_refused_with_the_reason(
    dataset: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(DistillError, match=message) as caught:
        recipes.get(dataset, "fast", **overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "overrides"),
    [
        ("imagenet", {"teacher": "R152x2_T_224 + R152x2_T_384", "ensemble": "probabilities"}),
        ("imagenet", {"student": "vit_s16", "resolution": 96}),
        ("imagenet", {"teacher": "AugReg_S16_224@96 + mine.npz", "ensemble": "probabilities"}),
        ("imagenet", {"policy": "labels", "ensemble": "probabilities"}),
        ("flowers", {"batch_size": 1, "policy": "same/ic"}),
        ("pets", {"transfer_set": "tfds:cifar10"}),
    ],
)
def test_what_can_work_is_let_through(dataset: str, overrides: dict[str, Any]) -> None:
    """Whether a file or a set is at hand is not known yet."""
    recipes.get(dataset, "fast", **overrides)
