"""What mixup adds, by images and steps: which runs count, and what is said of the differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from distill_lib.report import differences, support


def runs(gain: float, slope: float = 0.0) -> pd.DataFrame:
    """Runs at four places with this gain of mixup, in points, and what it changes where the images double."""
    noise, rows = np.random.default_rng(0), []
    for images in (128, 256, 512, None):
        for policy in support.POLICIES:
            for seed in (0, 1, 2):
                added = (gain + slope * np.log2((images or 1020) / 128)) * (policy == "mix")
                row = {"study": "fashion_support", "policy": policy, "seed": seed, "view_seed": 0, "steps": 800}
                row |= {"train_images": images, "mixup": "batch", "epochs": 100.0, "train_kl": 0.1, "test_kl": 0.2}
                rows.append(row | {"test_top1": 0.8 + 0.001 * seed + (added + noise.normal(0, 0.01)) / 100})
    return pd.DataFrame(rows)


def test_only_places_with_both_policies_and_one_lambda_for_a_batch_count() -> None:
    every = runs(1.0)
    lonely = (every["policy"] == "mix") & (every["train_images"] == 256)
    other = every.assign(mixup="example")
    own = support.pairs(pd.concat([every[~lonely], other]))
    assert sorted(own["images"].unique()) == [128, 512, 1020] and len(own) == 18
    assert support.pairs(every.assign(study="fashion_long")).empty


@pytest.mark.parametrize(("gain", "part"), [(2.0, "Seen to pay: with"), (-2.0, "Seen to cost: with")])
def test_the_verdict_names_the_places(gain: float, part: str) -> None:
    known = support.gains(support.pairs(runs(gain)))
    assert f"{part} 128, 256, 512, 1,020 images after 800 steps" in support.verdict(known)
    assert list(known) == [(800, 128), (800, 256), (800, 512), (800, 1020)]


def test_the_trend_is_what_a_doubling_of_the_images_changes() -> None:
    (text,) = support.trends(support.pairs(runs(3.0, slope=-1.0)))
    assert text.startswith(f"by {differences.signed(-1.0)} points after 800 steps")
    assert "12 pairs" in text and support.trends(support.pairs(runs(3.0).head(12))) == []
