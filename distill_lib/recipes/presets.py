"""Presets: the settings of every recipe that has a name.

Those of the paper's own runs are in `paper`, those of its teachers in `bit_hyperrule`, and those of a folder of
pictures in `folder_presets`.
"""

from __future__ import annotations

from typing import Any

from distill_lib.datasets import image_folder
from distill_lib.errors import unknown
from distill_lib.recipes import bit_hyperrule, folder_presets, paper
from distill_lib.recipes.paper import Preset

FASHION = {
    "policy": "mix",
    "student": "bit_r11w8",
    "teacher": "fashion",
    "batch_size": 128,
    "resolution": 28,
    "temperature": 1.0,
    "learning_rate": 3e-2,
    "weight_decay": 1e-4,
    "warmup_steps": 50,
    "crop_area": (0.25, 1.0),
    "ensemble_crops": 200,
}

COMMON = {
    "fashion": FASHION,
    "fashion_mnist": FASHION,
    "fashion_teacher": FASHION
    | {"policy": "labels", "student": "bit_r11w24", "whole": 0.5, "teacher": "none", "temperature": 2}
    | {"learning_rate": 3e-3},
    **paper.COMMON,
}
_OWN: dict[str, dict[str, dict[str, Any]]] = {
    "fashion": {
        "quick": {"epochs": 100},
        "grid": {"epochs": 30},
        "short": {"epochs": 30},
        "compare": {"epochs": 100},
        "medium": {"epochs": 100},
        "long": {"epochs": 1000},
        "longest": {"epochs": 3000},
        "support": {"epochs": 100},  # few to all training images at equal steps
        "capacity": {"epochs": 400},  # students of several widths, on the student's or the teacher's images
    },
    # Not in the paper: about as many steps as `quick` and `long` of fashion, and ten times as many.
    "fashion_mnist": {"fast": {"epochs": 2}, "medium": {"epochs": 20}, "long": {"epochs": 200}},
    "fashion_teacher": {"full": {"epochs": 24, "warmup_steps": 500, "evaluations": 24}},
}
VARIANTS = {
    **{dataset: {name: Preset(settings) for name, settings in rows.items()} for dataset, rows in _OWN.items()},
    **{dataset: paper.presets(dataset) | {"teacher": bit_hyperrule.preset(dataset)} for dataset in paper.COMMON},
}
SMOKE = {
    "student": "bit_r11w8",
    "teacher": "mock",
    "epochs": 2,
    "batch_size": 16,
    "resolution": 28,
    "temperature": 2,
    "learning_rate": 3e-3,
    "weight_decay": 1e-4,
    "warmup_steps": 1,
    "ensemble_crops": 2,
    "evaluations": 2,
    "dtype": "float32",  # it runs on CPUs, which have to emulate bfloat16
}
TEACHERLESS = "none"
FOREIGN = ("fast", "medium", "long")
"""Presets of Pets that sets of TFDS without presets of their own have too."""


def tables(dataset: str) -> tuple[dict[str, Any], dict[str, Preset]]:
    """What all presets of a data set have in common, and the presets; "smoke" runs on made-up data in seconds.

    Those of a folder of pictures follow from how many there are; sets of TFDS without a row are treated as Pets.

    Raises:
        DistillError: for an unknown data set, or a folder that is not as it must be.
    """
    if dataset.startswith(image_folder.FOLDER):
        images = len(image_folder.scan(image_folder.path_of(dataset)).pictures["train"])
        common, rows = folder_presets.COMMON, folder_presets.presets(images)
    elif is_foreign(dataset):
        common, note = COMMON["pets"] | {"teacher": TEACHERLESS}, ("The settings of Pets.",)
        rows = {name: Preset(VARIANTS["pets"][name].settings, notes=note) for name in FOREIGN}
    elif dataset in VARIANTS:
        common, rows = COMMON[dataset], VARIANTS[dataset]
    else:
        raise unknown("dataset", dataset, [*VARIANTS, "tfds:NAME", "folder:PATH"])
    return common, rows | {"smoke": Preset(SMOKE, notes=("On made-up data: its numbers mean nothing.",))}


def is_foreign(dataset: str) -> bool:
    """Whether a data set has no presets of its own."""
    return dataset.startswith(("tfds:", image_folder.FOLDER))


def describe(dataset: str, variant: str) -> Preset:
    """A preset with its source and notes; raises DistillError if there is none of that name."""
    rows = tables(dataset)[1]
    if variant not in rows:
        raise unknown(f"variant of {dataset}", variant, rows)
    return rows[variant]
