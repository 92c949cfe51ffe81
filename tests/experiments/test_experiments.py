"""The tables of experiments: every setting is a recipe that can be run, and runs that shall share batches do."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_lib import experiments, models, recipes, views
from distill_lib.errors import DistillError
from distill_lib.experiments import plans

CASES = [(name, dataset) for name, one in experiments.EXPERIMENTS.items() for dataset in one.settings]
NOTEBOOKS = Path(__file__).parents[2] / "book" / "experiments"


@pytest.mark.parametrize(("name", "dataset"), CASES)
def test_every_setting_is_a_recipe(name: str, dataset: str) -> None:
    """Its preset, changes and student exist; settings have their own names; a smoke run is small and on mock data."""
    settings = experiments.settings(name, dataset)
    assert len({setting.name for setting in settings}) == len(settings) > 1
    planned = experiments.plan(name, dataset, seeds=[0, 1], start="weights.npz")
    assert len(planned) >= 2 * len(settings)
    assert {recipe.student for recipe in planned} <= set(models.names())
    for recipe in experiments.plan(name, dataset, "smoke"):
        assert recipe.start is None, "a smoke run loads no weights"
        assert (recipe.variant, recipe.epochs, recipe.student) == ("smoke", 2, recipes.get("fashion", "smoke").student)


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_every_experiment_has_a_notebook_and_settings_on_the_embedded_set(name: str) -> None:
    """So that a reader without a GPU can repeat it; its comparisons name settings that there are."""
    assert (NOTEBOOKS / f"{name}.ipynb").is_file()
    names = {setting.name for setting in experiments.settings(name, "fashion")}
    assert {name for pair in experiments.get(name).better for name in pair} <= names


def test_all_policies_are_compared_under_their_names() -> None:
    """A new one has a row in the experiment on consistency."""
    settings = experiments.settings("consistency", "fashion")
    assert {setting.name: setting.changes["policy"] for setting in settings} == {
        views.NAMES[policy]: policy for policy in views.POLICIES
    }


def test_seeds_of_a_setting_share_their_views_unless_they_shall_not() -> None:
    """One sweep, one teacher's pass; with views of their own they repeat the study's runs."""
    shared = experiments.plan("optimizers", "fashion", seeds=[3, 4])
    assert {(recipe.seed, recipe.order_seed) for recipe in shared} == {(3, 3), (4, 3)}
    given = experiments.plan("optimizers", "fashion", seeds=[3, 4], view_seed=7)
    assert {recipe.order_seed for recipe in given} == {7}
    own = experiments.plan("patience", "fashion", seeds=[0, 1], shared_views=False)
    assert recipes.get("fashion", "long", policy="mix", seed=1) in own


def test_values_that_are_tried_are_all_planned() -> None:
    """The setting's own first, each once."""
    rates = [recipe.learning_rate for recipe in experiments.plan("optimizers", "fashion") if recipe.optimizer == "muon"]
    assert rates == [0.03, 0.01, 0.1, 0.3]


def test_a_start_is_put_in_where_a_setting_wants_one() -> None:
    """The others begin at random; the run before it is of another domain."""
    planned = experiments.plan("initialization", "fashion", start="run:a/b")
    assert [recipe.start for recipe in planned] == [None, "run:a/b", None, "run:a/b"]
    several = experiments.plan("initialization", "fashion", seeds=[0, 1], start="run:a/b")
    assert len({recipe.order_seed for recipe in several if recipe.start}) == 2, "from equal weights, over other views"
    assert len({recipe.order_seed for recipe in several if not recipe.start}) == 1
    (before,) = plans.pretraining("fashion")
    assert before.transfer_set == "digits" and before.start is None
    assert plans.pretraining("imagenet") == []


def test_unknown_names_are_told() -> None:
    with pytest.raises(DistillError, match="unknown experiment 'optimisers'. Did you mean 'optimizers'"):
        experiments.plan("optimisers", "fashion")
    with pytest.raises(DistillError, match="unknown dataset of the experiment mobilenet 'pets'.*Valid: fashion, "):
        experiments.plan("mobilenet", "pets")


def test_no_seeds_are_nothing_to_run() -> None:
    with pytest.raises(DistillError, match="name at least one seed"):
        experiments.plan("labels", "fashion", seeds=[])
