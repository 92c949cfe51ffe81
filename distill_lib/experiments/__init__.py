"""Experiments: the paper's questions as tables of recipes, and the notebooks that run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.experiments.definitions import EXPERIMENTS, PRETRAINED, Experiment, Setting
    from distill_lib.experiments.plans import budget, get, plan, pretraining, recipes_of, settings, teacher

__all__ = ["EXPERIMENTS", "PRETRAINED", "Experiment", "Setting", "budget", "get", "plan", "pretraining"]
__all__ += ["recipes_of", "settings", "teacher"]

__getattr__ = loader(__name__, {"definitions": __all__[:4], "plans": __all__[4:]})
