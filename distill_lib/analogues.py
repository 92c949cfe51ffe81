"""Each experiment of the paper on the embedded set: its claim, and which records belong to it, as a table.

Arms differ from the study's preset in what their settings say. `analogue_results` says what the records show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distill_lib import views

MAIN_POLICIES = ("same/ic", "mix")


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        name: as tables print it.
        settings: fields that differ from the study's preset: values, or functions that say whether a value will do.
    """

    name: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Analogue:
    """An experiment of the paper on the embedded set.

    Attributes:
        name: a heading.
        notebook: of `book/experiments`, which makes the runs.
        claim: what the paper says, in our words.
        arms: what is compared; the policy is one of `MAIN_POLICIES` where an arm does not name one.
        better: pairs (arm, arm): the first does better on the test images, if the claim holds; at the longest schedule
            that both have.
    """

    name: str
    notebook: str
    claim: str
    arms: tuple[Arm, ...]
    better: tuple[tuple[str, str], ...] = ()


def _not(value: Any) -> Callable[[Any], bool]:
    return lambda found: found != value


def _any(_: Any) -> bool:
    return True


def _several(teacher: str) -> bool:
    return " + " in teacher


def _policies(*keys: str) -> tuple[Arm, ...]:
    return tuple(Arm(views.NAMES[key], {"policy": key}) for key in keys)


_SAME, _MIX, _LABELS = (views.NAMES[key] for key in ("same/ic", "mix", "labels"))
_OTHER_SIZE = {"resolution": _not(28), "teacher": lambda name: not _several(name)}
ANALOGUES = (
    Analogue(
        "Consistency",
        "consistency",
        "Teacher and student must see the same pixels: fixed teachers and independent views are worse.",
        _policies(*views.POLICIES),
        tuple((_SAME, views.NAMES[key]) for key in ("fix/cc", "fix/ic_ens", "ind/ic")),
    ),
    Analogue(
        "Patience",
        "patience",
        "In long runs function matching is best, and better than labels alone.",
        _policies("labels", "fix/cc", "same/ic", "mix"),
        ((_MIX, _SAME), (_MIX, _LABELS)),
    ),
    Analogue(
        "Resolutions and ensembles",
        "resolutions_and_ensembles",
        "A teacher of a higher resolution helps, and so does a second teacher.",
        (
            Arm("one teacher, the study's size"),
            Arm("one teacher, another size", _OTHER_SIZE),
            Arm("one other teacher", {"teacher": lambda name: name != "fashion" and not _several(name)}),
            Arm("two teachers, mean of logits", {"teacher": _several, "ensemble": "logits"}),
            Arm("two teachers, mean of probabilities", {"teacher": _several, "ensemble": "probabilities"}),
        ),
        (("two teachers, mean of logits", "one teacher, the study's size"),),
    ),
    Analogue(
        "Other students",
        "mobilenet",
        "The recipe carries over to MobileNet: the large one is better than the small one, with GroupNorm better than "
        "with BatchNorm.",
        tuple(
            Arm(f"MobileNet v3 {size}, {norm}", {"student": f"mobilenet_v3_{size}_{norm}"})
            for size in ("large", "small")
            for norm in ("gn", "bn")
        ),
        (
            ("MobileNet v3 large, gn", "MobileNet v3 small, gn"),
            ("MobileNet v3 large, gn", "MobileNet v3 large, bn"),
        ),
    ),
    Analogue(
        "Optimisers",
        "optimizers",
        "Shampoo gets further than Adam in equally many steps.",
        tuple(
            Arm(name, {"optimizer": key, "schedule": _any, "warmup_steps": _any})
            for key, name in {"adam": "Adam", "shampoo": "Shampoo", "muon": "Muon"}.items()
        ),
        (("Shampoo", "Adam"),),
    ),
    Analogue(
        "First weights",
        "initialization",
        "Pre-trained first weights help in short runs, and no longer in long ones.",
        (Arm("from scratch"), Arm("from pre-trained weights", {"start": _not(None)})),
        (("from scratch", "from pre-trained weights"),),
    ),
    Analogue(
        "Images of another domain",
        "out_of_domain",
        "Unrelated images teach something, the student's own images most.",
        (
            Arm("its own images"),
            Arm("handwritten digits", {"transfer_set": "digits"}),
            Arm("patches of photographs", {"transfer_set": "patches"}),
        ),
        (("its own images", "patches of photographs"), ("its own images", "handwritten digits")),
    ),
    Analogue(
        "Labels",
        "labels",
        "Labels alone are worse than a teacher, whatever the optimiser, with mixup and without.",
        (
            *(
                Arm(f"{views.NAMES[policy]}, {name}", {"policy": policy, "optimizer": key})
                for policy in views.BASELINES
                for key, name in {"adam": "Adam", "sgd": "SGD with momentum"}.items()
            ),
            Arm(_SAME, {"policy": "same/ic"}),
        ),
        tuple((_SAME, f"{views.NAMES[policy]}, Adam") for policy in views.BASELINES),
    ),
    Analogue(
        "Ablations",
        "ablations",
        "The paper leaves these choices open.",
        (
            Arm("as the study"),
            Arm("lambda for each image", {"mixup": "example"}),
            Arm("lambda from another Beta", {"mixup_beta": _not(1.0)}),
            Arm("lambda folded", {"mixup_folded": True}),
            Arm("without the factor of T squared", {"temperature_squared": False}),
            Arm("labels in the loss", {"label_share": _not(0.0)}),
            *(Arm(f"distance {name}", {"distance": name}) for name in ("euclidean", "l2", "logsoftmax_euclidean")),
            Arm("distance hard", {"distance": "hard"}),
            Arm("weight decay times the learning rate", {"decay": "adamw"}),
        ),
    ),
)
