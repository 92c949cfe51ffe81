"""Experiments: the paper's questions as tables of recipes, and the notebooks that run them."""

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.experiments.matching import PRETRAINED
    from distill_lib.experiments.plans import EXPERIMENTS, Setting, get, of_set, plan, recipes_of, settings, teacher
    from distill_lib.experiments.running import pretrained, run, select
    from distill_lib.experiments.stress import stressed

__all__ = ["EXPERIMENTS", "PRETRAINED", "Setting", "get", "of_set", "plan", "pretrained", "recipes_of"]
__all__ += ["run", "select", "settings", "stressed", "teacher"]

__getattr__ = loader(
    __name__,
    {
        "matching": ["PRETRAINED"],
        "plans": ["EXPERIMENTS", "Setting", "get", "of_set", "plan", "recipes_of", "settings", "teacher"],
        "running": ["pretrained", "run", "select"],
        "stress": ["stressed"],
    },
)
