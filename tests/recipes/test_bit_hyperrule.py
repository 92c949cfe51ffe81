"""BiT's hyper-rule: what its section 3.3 fixes, and what it makes depend on the number of training images."""

from __future__ import annotations

import pytest

from distill_lib import experiments, models, recipes
from distill_lib.datasets.cards import CARDS
from distill_lib.recipes import presets
from distill_lib.teachers import published

IMAGES = {name: card.counts["train"] for name, card in CARDS.items() if "train" in card.counts}
RULE = {
    # set: steps, warm-up, resolution, policy, p of mixup
    "flowers": (500, 100, 128, "labels/rc", 1.0),
    "pets": (500, 100, 128, "labels/rc", 1.0),
    "food": (10_000, 500, 128, "labels/rc/mix", 0.1),
    "sun397": (10_000, 500, 128, "labels/rc/mix", 0.1),
    "imagenet": (20_000, 500, 224, "labels/mix", 0.1),
}


@pytest.mark.parametrize("dataset", RULE)
def test_teachers_are_made_as_the_rule_says(dataset: str) -> None:
    """SGD at .003 for batches of 512, no weight decay, from BiT-M; mixup for tasks that are not small."""
    recipe = recipes.get(dataset, "teacher")
    found = (recipe.steps(IMAGES[dataset]), recipe.warmup_steps, recipe.resolution, recipe.policy, recipe.mixup_beta)
    assert found == RULE[dataset]
    assert (recipe.optimizer, recipe.schedule, recipe.batch_size) == ("sgd_unclipped", "staircase", 512)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.mixup) == (3e-3, 0, "batch")
    assert not recipe.has_teacher
    assert recipe.eval_side == recipes.get(dataset, "fast").eval_side


@pytest.mark.parametrize(
    ("images", "schedule"),
    [(19_999, (500, 100)), (20_000, (10_000, 500)), (499_999, (10_000, 500)), (500_000, (20_000, 500))],
)
def test_the_schedule_follows_from_the_number_of_images(images: int, schedule: tuple[int, int]) -> None:
    assert presets.schedule(images) == schedule


def test_the_network_is_that_of_the_papers_teachers_and_fits_what_it_starts_from() -> None:
    """All that is replaced is the head."""
    recipe = recipes.get("flowers", "teacher")
    start, student = published.CHECKPOINTS[str(recipe.start)], recipe.student
    assert student == start.model == published.CHECKPOINTS["R152x2_T_flowers128"].model
    models.create(student, 102)


def test_what_is_decided_is_told() -> None:
    """Where paper and code of BiT contradict each other, or the names of the released teachers say something else."""
    told = {dataset: " ".join(presets.describe(dataset, "teacher").notes) for dataset in RULE}
    assert all("`sgd_unclipped`" in notes and "squeezed to a square" in notes for notes in told.values())
    assert "40, 60 and 80 %" in told["flowers"] and "40, 60 and 80 %" not in told["food"]
    assert "`rc128`" in told["sun397"] and "`ic224`" in told["imagenet"]


def test_a_smoke_run_keeps_the_rule_and_is_small() -> None:
    """Policy, optimiser and schedule are tried on made-up data, with a network that begins at random."""
    small, rule = experiments.teacher("food", "smoke"), recipes.get("food", "teacher")
    assert (small.student, small.epochs, small.start) == (presets.SMOKE["student"], 2, None)
    for field in ("policy", "optimizer", "schedule", "mixup_beta"):
        assert getattr(small, field) == getattr(rule, field), field
    assert experiments.teacher("food", seed=3) == recipes.get("food", "teacher", seed=3)
    assert experiments.teacher("fashion_teacher") == recipes.get("fashion_teacher", "full")
