"""Experiments: the paper's questions as tables of recipes, and the notebooks that run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.lazy import loader

if TYPE_CHECKING:
    from distill_lib.experiments.definitions import EXPERIMENTS, PRETRAINED, Arm, Experiment
    from distill_lib.experiments.plans import arms, get, plan, pretraining, recipes_of, teacher

__all__ = [
    "EXPERIMENTS",
    "PRETRAINED",
    "Arm",
    "Experiment",
    "arms",
    "get",
    "plan",
    "pretraining",
    "recipes_of",
    "teacher",
]

__getattr__ = loader(
    __name__,
    {
        "definitions": ["Arm", "EXPERIMENTS", "Experiment", "PRETRAINED"],
        "plans": ["arms", "get", "plan", "pretraining", "recipes_of", "teacher"],
    },
)
