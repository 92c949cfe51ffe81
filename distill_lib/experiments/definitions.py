"""The experiments of the paper (Beyer et al., CVPR 2022) as tables: what is compared with what, on which data.

An experiment is a list of settings. A setting is a recipe, by what it changes in a preset. On the embedded set all have
the budget of the preset `compare` unless they say otherwise; on the paper's sets a setting is a row of its tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill_lib import views

PRETRAINED = "pretrained"
"""Stands for the start of a student that continues another run, which `experiments.plan` is told."""


@dataclass(frozen=True)
class Setting:
    """One side of a comparison.

    Attributes:
        changes: fields of a recipe that differ from the preset.
        variant: the preset; None takes the experiment's budget.
        tries: further values of fields that are tried; validation images choose among them.
        beside: the setting that it changes one thing of; None stands for the experiment's first one.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    variant: str | None = None
    tries: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    beside: str | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is compared: a question, where the paper asks it, and what it found, in our words; empty where it is open.

    Of the `settings` by data set, the first is what the others are compared with that name no other. Pairs in `better`
    are of the embedded set: the first names more test images, if the claim holds; `further` ones are compared too.
    """

    title: str
    source: str
    claim: str
    settings: dict[str, tuple[Setting, ...]]
    better: tuple[tuple[str, str], ...] = ()
    further: tuple[tuple[str, str], ...] = ()


def _presets(*names: str) -> tuple[Setting, ...]:
    return tuple(Setting(name, variant=name) for name in names)


def _than(first: str, *others: str) -> tuple[tuple[str, str], ...]:
    return tuple((first, other) for other in others)


def _lengths(series: str, *epochs: int) -> list[str]:
    return [f"{series}_{length}" for length in epochs]


def _by_length(*policies: str) -> tuple[Setting, ...]:
    lengths = ("short", "medium", "long")
    return tuple(Setting(f"{key}, {length}", {"policy": key}, length) for key in policies for length in lengths)


_SAME: dict[str, Any] = {"policy": "same/ic"}
_MIX: dict[str, Any] = {"policy": "mix"}
_BOTH = {"teacher": "fashion@28 + fashion@36"}
_WARM = "temperature 5"
_SQUARED = f"{_WARM}, without T\N{SUPERSCRIPT TWO}"
_RATES = {"learning_rate": (0.01, 0.1, 0.3)}  # beside the preset's .03
_SGD: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1}
_DOMAINS: dict[str, dict[str, Any]] = {
    "clothes": {},
    "patches of photographs": {"transfer_set": "patches"},
    "handwritten digits": {"transfer_set": "digits", "epochs": 100 * 1_020 / 1_797},  # as many steps
}
_WIDTHS = {width: {"student": f"bit_r11w{width}"} for width in (8, 16, 24)}
_TRANSFER: dict[str, dict[str, Any]] = {
    "1,020 images": _SAME,
    "1,020 images, mixed": _MIX,
    "57,960 images": _SAME | {"transfer_set": "fashion_teacher", "epochs": 400 * 1_020 / 57_960},  # as many steps
}
_SMALLER = {"learning_rate": (0.01,)}
_LARGER, _LARGEST = {"learning_rate": (0.1,)}, {"learning_rate": (0.3,)}

EXPERIMENTS: dict[str, Experiment] = {
    "consistency": Experiment(
        title="Is the teacher consistent?",
        source="Figs. 2, 3 and 9 to 12",
        claim="Teacher and student must see the same pixels: fixed teachers and independent views are worse.",
        settings={
            "fashion": tuple(Setting(views.NAMES[policy], {"policy": policy}, "medium") for policy in views.POLICIES)
        },
        better=_than(views.NAMES["same/ic"], *(views.NAMES[policy] for policy in ("fix/cc", "fix/ic_ens", "ind/ic"))),
    ),
    "patience": Experiment(
        title="Is the teacher patient?",
        source="Fig. 4 and Table 4",
        claim="Longer schedules are better, and pass training from scratch and, but for Flowers, transfer.",
        settings={
            "fashion": _by_length("labels", "same/ic", "mix"),
            "flowers": _presets(*_lengths("mix", 1_000, 10_000, 100_000, 1_000_000), "scratch_10000", "transfer_10000"),
            "pets": _presets(*_lengths("mix", 300, 1_000, 3_000, 10_000, 30_000), "scratch_10000", "transfer_10000"),
            "food": _presets(*_lengths("mix", 100, 1_000, 3_000), "scratch_1000", "transfer_1000"),
            "sun397": _presets(*_lengths("mix", 100, 1_000, 3_000), "scratch_1000", "transfer_1000"),
        },
        better=(("mix, long", "mix, medium"), ("mix, medium", "mix, short"), ("mix, long", "labels, long")),
    ),
    "imagenet": Experiment(
        title="Does it hold on ImageNet?",
        source="Figs. 1 and 5 (left), Table 3",
        claim="A fixed teacher is overtaken by consistent teaching, and that, in long runs, by function matching.",
        settings={
            "fashion": _by_length("fix/cc", "same/ic", "mix"),
            "imagenet": _presets(
                *(name for series in ("fixed", "same", "mix") for name in _lengths(series, 30, 90, 300, 1_200, 9_600))
            ),
        },
        better=(("same/ic, long", "fix/cc, long"), ("mix, long", "same/ic, long")),
    ),
    "resolutions_and_ensembles": Experiment(
        title="Another resolution, another teacher?",
        source="Table 1",
        claim="A teacher that sees more pixels than its student helps a little, and so does a second teacher.",
        settings={
            "fashion": (
                Setting("teacher and student at 28", _MIX),
                Setting("teacher at 36, student at 28", _MIX | {"teacher": "fashion@36"}),
                Setting("teachers at 28 and 36, mean of logits", _MIX | _BOTH),
                Setting("teachers at 28 and 36, mean of probabilities", _MIX | _BOTH | {"ensemble": "probabilities"}),
                Setting("teacher and student at 20", _MIX | {"resolution": 20}),
                Setting("teacher at 28, student at 20", _MIX | {"teacher": "fashion@28", "resolution": 20}),
            ),
            "imagenet": _presets("mix_300", "t384_mix_300", "s160_mix_300", "ensemble_mix_1200", "mix_1200"),
        },
        better=(
            ("teacher at 28, student at 20", "teacher and student at 20"),
            ("teacher at 36, student at 28", "teacher and student at 28"),
            ("teachers at 28 and 36, mean of logits", "teacher and student at 28"),
        ),
    ),
    "mobilenet": Experiment(
        title="Another student?",
        source="Section 3.6 and Table 3",
        claim="The recipe carries over to MobileNet; the larger student learns more, "
        "and GroupNorm gets past BatchNorm.",
        settings={
            "fashion": (
                Setting("ResNet, width 8", _SAME),
                Setting("ResNet, width 16", _SAME | {"student": "bit_r11w16"}),
                Setting("MobileNet small, GroupNorm", _SAME | {"student": "mobilenet_v3_small_gn"}, tries=_SMALLER),
                Setting("MobileNet small, BatchNorm", _SAME | {"student": "mobilenet_v3_small_bn"}, tries=_SMALLER),
                Setting("MobileNet large, GroupNorm", _SAME | {"student": "mobilenet_v3_large_gn"}, tries=_SMALLER),
            ),
            "imagenet": _presets(
                "mobilenet_300", "mobilenet_2t_300", "mobilenet_small_300", "mobilenet_bn_300", "mobilenet_bn_2t_300"
            ),
        },
        better=(
            ("ResNet, width 16", "ResNet, width 8"),
            ("MobileNet large, GroupNorm", "MobileNet small, GroupNorm"),
            ("MobileNet small, GroupNorm", "MobileNet small, BatchNorm"),
        ),
    ),
    "optimizers": Experiment(
        title="Does a better optimiser save patience?",
        source="Section 3.4, Fig. 5 (middle), appendix D",
        claim="Shampoo gets further than Adam in equally many steps.",
        settings={
            "fashion": (
                Setting("Adam", _SAME, tries=_RATES),
                Setting("Shampoo", _SAME | {"optimizer": "shampoo"}, tries=_RATES),
                Setting("Muon", _SAME | {"optimizer": "muon"}, tries=_RATES),
            ),
            "imagenet": _presets("same_300", "shampoo_same_300", "mix_300", "shampoo_mix_300"),
        },
        better=(("Shampoo", "Adam"),),
        further=(("Muon", "Adam"),),
    ),
    "initialization": Experiment(
        title="Does it help to start from trained weights?",
        source="Section 3.5 and Fig. 5 (right)",
        claim="Pre-trained weights help short runs, and make no difference in long ones.",
        settings={
            "fashion": (
                Setting("from scratch, 30 epochs", _SAME | {"epochs": 30}),
                Setting("pre-trained, 30 epochs", _SAME | {"epochs": 30, "start": PRETRAINED}),
                Setting("from scratch, 100 epochs", _SAME),
                Setting("pre-trained, 100 epochs", _SAME | {"start": PRETRAINED}),
            ),
            "imagenet": _presets("same_300", "bitm_same_300", "same_1200", "bitm_same_1200"),
        },
        better=(("pre-trained, 30 epochs", "from scratch, 30 epochs"),),
        further=(("pre-trained, 100 epochs", "from scratch, 100 epochs"),),
    ),
    "out_of_domain": Experiment(
        title="Must the images be of the domain?",
        source="Section 3.8 and Fig. 6",
        claim="Images of another domain teach something, the student's own most.",
        settings={
            "fashion": tuple(
                Setting(name + (", mixed" if policy == "mix" else ""), {"policy": policy} | settings)
                for policy in ("same/ic", "mix")
                for name, settings in _DOMAINS.items()
            ),
            "pets": _presets("mix_1000", "from_food_1000", "from_imagenet_1000"),
            "sun397": _presets("mix_100", "from_food_100", "from_imagenet_100"),
        },
        better=_than("clothes", "patches of photographs", "handwritten digits"),
    ),
    "labels": Experiment(
        title="How far do labels alone get?",
        source="Fig. 7",
        claim="Labels alone are worse than a teacher, with Adam as with SGD, with mixup and without.",
        settings={
            "fashion": (
                Setting("consistent teaching", _SAME, tries=_LARGER),
                Setting("labels", {"policy": "labels"}, tries=_LARGER),
                Setting("labels + mixup", {"policy": "labels/mix"}, tries=_LARGER),
                Setting("labels, SGD", {"policy": "labels"} | _SGD, tries=_LARGEST),
                Setting("labels + mixup, SGD", {"policy": "labels/mix"} | _SGD, tries=_LARGEST),
            ),
            "imagenet": _presets("mix_300", *(f"labels_{name}_300" for name in ("adam", "mix_adam", "sgd", "mix_sgd"))),
        },
        better=_than("consistent teaching", "labels", "labels + mixup", "labels, SGD", "labels + mixup, SGD"),
    ),
    "capacity": Experiment(
        title="What keeps a student below its teacher?",
        source="not in the paper",
        claim="",
        settings={
            "fashion": tuple(
                Setting(f"width {width}, {name}", student | settings, "capacity")
                for name, settings in _TRANSFER.items()
                for width, student in _WIDTHS.items()
            )
        },
        further=tuple(
            (setting, f"width {width}, 1,020 images")
            for width, wider in ((8, 16), (16, 24))
            for setting in (f"width {wider}, 1,020 images", f"width {width}, 57,960 images")
        ),
    ),
    "ablations": Experiment(
        title="What does the paper leave open?",
        source="not in the paper",
        claim="",
        settings={
            "fashion": (
                Setting("function matching", _MIX),
                Setting("lambda for each image", _MIX | {"mixup": "example"}),
                Setting("lambda folded", _MIX | {"mixup_folded": True}),
                Setting("lambda ~ Beta(0.2, 0.2)", _MIX | {"mixup_beta": 0.2}),
                Setting(_WARM, _MIX | {"temperature": 5.0}),
                Setting(_SQUARED, _MIX | {"temperature": 5.0, "temperature_squared": False}, beside=_WARM),
                Setting("half labels in the loss", _MIX | {"label_share": 0.5}),
                Setting("Euclidean distance", _MIX | {"distance": "euclidean"}),
                Setting("squared distance", _MIX | {"distance": "l2"}),
                Setting("distance of log-probabilities", _MIX | {"distance": "logsoftmax_euclidean"}),
                Setting("the teacher's first guess", _MIX | {"distance": "hard"}),
                Setting("AdamW's weight decay", _MIX | {"decay": "adamw", "weight_decay": 3.3e-3}),
                Setting("networks in bfloat16", _MIX | {"dtype": "bfloat16"}),
            )
        },
    ),
}
