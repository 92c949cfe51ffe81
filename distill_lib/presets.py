"""Presets: the settings of every recipe that has a name, as tables that can be compared with the paper by eye.

References:
    Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022, Table 4 (small sets)
    and section 3.1 (ImageNet). Where paper and released configuration disagree the paper's value is used: sun397
    medium, learning rate .003 (configuration: .001).
"""

from __future__ import annotations

from distill_lib.errors import unknown

PAPER = {
    "policy": "mix",
    "student": "bit_r50x1",
    "batch_size": 512,
    "resolution": 128,
    "warmup_steps": 1500,
    "eval_side": 0.8,
}
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
    "fashion_teacher": FASHION | {"policy": "labels", "student": "bit_r11w24", "whole": 0.5, "teacher": "none"},
    "flowers": PAPER | {"teacher": "R152x2_T_flowers128"},
    "pets": PAPER | {"teacher": "R152x2_T_pet128"},
    "food": PAPER | {"teacher": "R152x2_T_food128"},
    "sun397": PAPER | {"teacher": "R152x2_T_sun128"},
    "imagenet": PAPER
    | {"teacher": "R152x2_T_224", "batch_size": 4096, "resolution": 224, "warmup_steps": 5000, "eval_side": 0.875},
}


def _row(epochs: float, temperature: float, learning_rate: float, weight_decay: float) -> dict:
    return {
        "epochs": epochs,
        "temperature": temperature,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
    }


VARIANTS: dict[str, dict[str, dict]] = {
    "fashion": {
        "quick": {"epochs": 100},
        "grid": {"epochs": 30},
        "short": {"epochs": 30},
        "medium": {"epochs": 100},
        "long": {"epochs": 1000},
        "longest": {"epochs": 3000},
    },
    # Not in the paper: about as many steps as `quick` and `long` of fashion, and ten times as many.
    "fashion_mnist": {"fast": {"epochs": 2}, "medium": {"epochs": 20}, "long": {"epochs": 200}},
    "fashion_teacher": {"full": _row(24, 2, 3e-3, 1e-4) | {"warmup_steps": 500, "evaluations": 24}},
    # Table 4:            epochs  T   lr    wd
    "flowers": {
        "fast": _row(10_000, 10, 3e-3, 3e-4),
        "medium": _row(100_000, 1, 1e-3, 1e-4),
        "long": _row(1_000_000, 1, 3e-4, 1e-5),
    },
    "pets": {
        "fast": _row(1_000, 5, 1e-2, 1e-3),
        "medium": _row(3_000, 10, 3e-3, 3e-4),
        "long": _row(30_000, 2, 3e-3, 1e-5),
    },
    "food": {
        "fast": _row(100, 10, 1e-2, 1e-3),
        "medium": _row(1_000, 10, 1e-3, 3e-4),
        "long": _row(3_000, 5, 1e-2, 1e-4),
    },
    "sun397": {
        "fast": _row(100, 10, 1e-2, 1e-3),
        "medium": _row(1_000, 10, 3e-3, 1e-4),
        "long": _row(3_000, 10, 1e-2, 3e-5),
    },
    "imagenet": {
        "fast": _row(300, 1, 3e-2, 3e-4),
        "medium": _row(1_200, 1, 3e-2, 3e-4),
        "long": _row(9_600, 1, 3e-2, 3e-4),
    },
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
}
TEACHERLESS = "none"


def tables(dataset: str) -> tuple[dict, dict[str, dict]]:
    """What all presets of a data set have in common, and the presets; sets without a row are treated as Pets."""
    if dataset.startswith(("tfds:", "folder:")):
        return COMMON["pets"] | {"teacher": TEACHERLESS}, VARIANTS["pets"]
    if dataset not in VARIANTS:
        raise unknown("dataset", dataset, [*VARIANTS, "tfds:NAME", "folder:PATH"])
    return COMMON[dataset], VARIANTS[dataset]
