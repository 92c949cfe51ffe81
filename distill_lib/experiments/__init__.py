"""Experiments: the paper's questions as tables of recipes, and the notebooks that run them."""

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.experiments.definitions import EXPERIMENTS, PRETRAINED, Experiment, Setting
    from distill_lib.experiments.plans import budget, get, of_set, plan, pretraining, recipes_of, settings, teacher
    from distill_lib.experiments.running import pretrained, run, select
    from distill_lib.experiments.stress import corrupted, quantized

__all__ = ["EXPERIMENTS", "PRETRAINED", "Experiment", "Setting", "budget", "corrupted", "get", "of_set", "plan"]
__all__ += ["pretrained", "pretraining", "quantized", "recipes_of", "run", "select", "settings", "teacher"]

__getattr__ = loader(
    __name__,
    {
        "definitions": ["EXPERIMENTS", "PRETRAINED", "Experiment", "Setting"],
        "plans": ["budget", "get", "of_set", "plan", "pretraining", "recipes_of", "settings", "teacher"],
        "running": ["pretrained", "run", "select"],
        "stress": ["corrupted", "quantized"],
    },
)
