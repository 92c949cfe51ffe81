"""What mixup adds, by the number of training images and of steps: function matching minus consistent teaching."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from distill_lib import datasets, views
from distill_lib.report import aggregate, differences
from distill_lib.report.differences import Difference

POLICIES = ("mix", "same/ic")
Gains = Mapping[tuple[int, int], Difference]  # by steps and images, corrected for their number


def places(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the preset `support`, and how many `images` were for training; each seed and way of mixup once."""
    own = aggregate.live(runs)
    own = own[(own["study"] == "fashion_support") & own["policy"].isin(POLICIES)]
    if own.empty:
        return pd.DataFrame(columns=["steps", "images", "policy", "mixup", "seed", "view_seed", "run_id"])
    images = own["train_images"].fillna(datasets.get("fashion").counts["train"]).astype(int)
    return own.assign(images=images).drop_duplicates(["steps", "images", "policy", "mixup", "seed", "view_seed"])


def pairs(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `places` with one lambda for a batch, where both policies have some."""
    own = places(runs)
    own = own[own["mixup"] == "batch"]
    return own[own.groupby(["steps", "images"])["policy"].transform("nunique") == len(POLICIES)]


def gains(own: pd.DataFrame) -> Gains:
    """How much mixup adds to the test accuracy at each place of the table of `pairs`."""
    known, names = {}, (views.NAMES[POLICIES[0]], views.NAMES[POLICIES[1]])
    for place, group in own.groupby(["steps", "images"]):
        first, second = (group[group["policy"] == policy] for policy in POLICIES)
        known[place] = [differences.compare(first, second, names)]
    return {place: gain for place, several in differences.holm_of_groups(known).items() for gain in several}


def verdict(known: Gains) -> str:
    """Where mixup is seen to pay, seen to cost, and where neither, as a sentence."""
    texts = []
    for sign, text in ((1, "Seen to pay"), (-1, "Seen to cost"), (0, "Undecided")):
        by_steps: dict[int, list[str]] = {}
        for steps, images in (place for place, gain in known.items() if gain.sign == sign):
            by_steps.setdefault(steps, []).append(f"{images:,}")
        places = [f"with {', '.join(names)} images after {steps:,} steps" for steps, names in by_steps.items()]
        texts.append(f"{text}: {'; '.join(places) or 'nowhere'}.")
    return " ".join(texts)


def trends(own: pd.DataFrame) -> list[str]:
    """How the gain changes where images double, by a line through all pairs of runs, for each number of steps."""
    texts = []
    for steps, group in own.groupby("steps"):
        each = group.pivot_table("test_top1", ["images", "seed", "view_seed"], "policy").dropna().reset_index()
        if each["images"].nunique() < 3:
            continue
        fit = stats.linregress(np.log2(each["images"]), 100 * (each["mix"] - each["same/ic"]))
        reach = stats.t.ppf(0.975, len(each) - 2) * fit.stderr
        slope, low, high = map(differences.signed, (fit.slope, fit.slope - reach, fit.slope + reach))
        sure = f"95 % {low} to {high}, {len(each)} pairs, *p* {differences.p_in_words(fit.pvalue)}"
        texts.append(f"by {slope} points after {steps:,} steps ({sure})")
    return texts
