"""The paper's numbers: all there, and each repeated by a preset with the settings that its row gives."""

from __future__ import annotations

import pytest

from distill_lib import recipes
from distill_lib.recipes import Recipe
from distill_lib.report import paper_numbers
from distill_lib.teachers import published

ROWS = paper_numbers.table().to_dict("records")
POLICIES = {
    "fixed teacher": "fix/cc",
    "consistent teaching": "same/ic",
    "student begins": "same/ic",
    "function matching": "mix",
    "labels + mixup": "labels/mix",
}
STUDENTS = {"BiT": "bit_r50x1", "R50": "bit_r50x1", "MobileNet v3 Large (GN)": "mobilenet_v3_large_gn"} | {
    "MobileNet v3 Small (GN)": "mobilenet_v3_small_gn",
    "MobileNet v3 Large (BN)": "mobilenet_v3_large_bn",
}


def teacher_sizes(recipe: Recipe) -> str:
    """Resolutions of a recipe's teachers, as the paper writes them."""
    sizes = [published.CHECKPOINTS[name].resolution for name in recipe.teacher.split(" + ")]
    return "+".join(map(str, sizes))


def test_all_numbers_of_the_paper_are_there() -> None:
    """Each with a source; each is repeated by a command, or says why not."""
    assert len(ROWS) == 143
    for row in ROWS:
        again = paper_numbers.repeat(row["repeat"])
        assert row["source"] and row["value"] and row["experiment"]
        assert again.kind in ("train", "judge", "check", "none")
        assert again.command or row["note"]


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["repeat"].startswith("train")], ids=lambda row: row["repeat"]
)
def test_presets_have_the_settings_that_the_paper_gives(row: dict[str, str]) -> None:
    """Epochs, temperature, learning rate, weight decay, resolutions, networks, policy and optimiser."""
    again = paper_numbers.repeat(row["repeat"])
    recipe = recipes.get(again.dataset, again.name)
    if row["epochs"]:
        assert recipe.epochs == float(row["epochs"])
    for name in ("temperature", "learning_rate", "weight_decay"):
        assert not row[name] or getattr(recipe, name) == float(row[name]), name
    seen, _, shown = row["resolution"].rpartition("->S")
    assert recipe.resolution == int(shown)
    assert not seen or "T" + teacher_sizes(recipe) == seen
    policy = next((key for words, key in POLICIES.items() if row["setting"].startswith(words)), "labels")
    if "best of the four" not in row["setting"]:
        assert recipe.policy == policy
    assert recipe.optimizer == ("shampoo" if "Shampoo" in row["setting"] else "sgd" if "sgd" in again.name else "adam")
    assert recipe.student == next(name for words, name in STUDENTS.items() if row["student"].startswith(words))
    assert (recipe.start == "BiT-M-R50x1") == ("BiT-M-R50x1" in row["setting"])
    assert (recipe.transfer_set is not None) == (row["experiment"] == "out of domain")


def test_every_row_of_the_papers_tables_is_a_preset_and_the_other_way_round() -> None:
    """Beside these there are only fast, medium and long, the figure without numbers, teachers, and the smoke test."""
    used = {row["repeat"] for row in ROWS if row["repeat"].startswith("train")}
    for dataset in ("flowers", "pets", "food", "sun397", "imagenet"):
        for variant in recipes.variants(dataset):
            named = variant in ("fast", "medium", "long", "teacher", "smoke") or variant.startswith("from_")
            assert named or f"train {dataset} {variant}" in used, variant


def test_the_figures_of_the_book_take_table_3() -> None:
    """Seven lengths of three policies, and the teacher."""
    found = paper_numbers.imagenet()
    assert found["policy"].value_counts().to_dict() == {"fix/cc": 7, "same/ic": 7, "mix": 7, "teacher": 1}
    best = found.set_index(["policy", "epochs"]).loc[("mix", 9600.0)]
    assert best["test_top1"] == pytest.approx(0.8231) and best["name"] == "function matching"
    assert best["source"] == "Beyer et al. 2022 (arXiv 2106.05237v2, Table 3)"
    assert found.loc[found["policy"] == "teacher", "test_top1"].item() == pytest.approx(0.83)
