"""Recipes: what a run is, as data; `presets` holds those that have a name."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from distill_lib import losses, models, optim, views
from distill_lib.errors import DistillError, unknown
from distill_lib.models import compression, ensemble

_ENDLESS = 1e300  # a number that no setting can have, and that both float and int can
MOST_STEPS = 2**31 - 1  # that int32 counts


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run's result."""

    dataset: str  #: the images the student learns from
    variant: str  #: name of the preset this recipe started from
    policy: str  #: what teacher and student see: a key of `views.POLICIES` or `views.BASELINES`
    student: str  #: model name
    teacher: str  #: a name, an .npz, ``MODULE:FUNCTION``, or several with " + " between; unused by baselines
    epochs: float  #: passes over the training images
    batch_size: int  #: images a step
    resolution: int  #: height and width of the rendered views, in pixels
    temperature: float  #: T of the distillation loss
    learning_rate: float  #: peak learning rate
    weight_decay: float  #: decoupled, not multiplied by the learning rate
    warmup_steps: int  #: steps of the linear warm-up
    seed: int = 0  #: of initialisation, order of the images and views
    train_images: int | None = None  #: use only the first so many (`fashion`: classes in equal parts)
    crop_area: tuple[float, float] = (0.05, 1.0)  #: smallest and largest of an inception crop, share of the image
    whole: float = 0.0  #: share of inception crops that are replaced by the whole image
    mixup: str = "batch"  #: "batch" or "example": one lambda a batch, or one an image
    ensemble_crops: int = 1000  #: crops that `fix/ic_ens` averages the teacher's prediction over
    eval_side: float = 1.0  #: side of the central square that evaluation shows, share of the shorter side
    evaluations: int = 20  #: rows of metrics.csv: how often a run reports and evaluates itself
    ensemble: str = "logits"  #: "logits" or "probabilities": what several teachers average
    dtype: str = "float32"  #: what networks compute in, or "bfloat16"; parameters and loss are float32 anyway
    view_seed: int | None = None  #: of order and views, so that several seeds learn at once; None takes `seed`
    optimizer: str = "adam"  #: a name in `optim.OPTIMIZERS`
    schedule: str = "cosine"  #: of learning rate and weight decay, a name in `optim.SCHEDULES`
    decay: str = "schedule"  #: as in the paper, or "adamw": weight decay times the learning rate
    distance: str = "kl"  #: a name in `losses.DISTANCES`; only "kl" uses the temperature
    temperature_squared: bool = True  #: whether the loss is multiplied by T^2
    label_share: float = 0.0  #: share of the loss that is the cross-entropy with labels; the paper's is 0
    mixup_beta: float = 1.0  #: p of mixup's lambda ~ Beta(p, p); 1 is uniform
    mixup_folded: bool = False  #: whether mixup takes max(lambda, 1 - lambda), as the released code does
    start: str | None = None  #: a teacher's name, a checkpoint, or ``run:STUDY/RUN_ID``; None begins at random
    transfer_set: str | None = None  #: the set whose training images are shown instead; None takes its own
    label_smoothing: float = 0.0  #: share of the target that "hard" gives other classes; the paper's is 0
    stored: int | None = None  #: logits kept of each stored answer; None asks the teacher in every step
    compression: str = "none"  #: form that the student is trained, judged and saved in, a key of `compression.FORMS`
    on_divergence: str = "stop"  #: or "rewind": back to the last report where training goes wrong, see `divergence`

    def __post_init__(self) -> None:
        _check_types(self)
        policy = views.policy(self.policy)
        for name, known in _NAMES.items():
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        for name, (low, high, reason) in _RANGES.items():
            if (value := getattr(self, name)) is not None and not low <= value <= high:
                raise DistillError(f"{name} must be from {low:g} to {high:.10g}{reason}, got {value}.")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise DistillError(f"crop_area must be two fractions 0 < low <= high <= 1, got {self.crop_area}.")
        if self.label_share and policy.relation in ("none", "fixed"):
            raise DistillError(
                f"label_share needs a teacher that is asked in every step; policy {self.policy} has none."
            )
        if self.transfer_set is not None and (policy.relation == "none" or self.label_share):
            raise DistillError(
                f"labels of {self.transfer_set} do not name classes of {self.dataset}: a transfer_set needs a policy "
                "with a teacher, and label_share 0."
            )
        shrunk = self.weight_decay * (self.learning_rate if self.decay == "adamw" else 1)
        if shrunk >= 1:
            raise DistillError(
                f"weight_decay {self.weight_decay:g} takes {shrunk:g} of every weight in a step: it must be below "
                f"{self.weight_decay / shrunk:g}; those of the paper are 1e-5 to 1e-3."
            )
        if self.train_images is not None and self.train_images < self.batch_size:
            self.check_length(self.train_images)

    def only(self, fields: Sequence[str], **values: Any) -> Recipe:
        """A recipe that is equal for all runs that share some fields: what a compiled program depends on."""
        kept = {name: getattr(self, name) for name in fields}
        return Recipe(**(_ANY | kept | values))

    @property
    def study(self) -> str:
        """The folder of results this run belongs to; folders of pictures of equal name differ by a hash of the path."""
        kind, _, place = self.dataset.partition(":")
        if not place:
            return f"{self.dataset}_{self.variant}"
        words = re.sub(r"[^\w.-]+", "-", PurePath(place).name if kind == "folder" else place).strip("-.")
        digest = [hashlib.sha256(place.encode()).hexdigest()[:6]] if kind == "folder" else []
        return "-".join([kind, *([words] if words else []), *digest]) + f"_{self.variant}"

    @property
    def order_seed(self) -> int:
        """The seed of order and views."""
        return self.seed if self.view_seed is None else self.view_seed

    @property
    def has_teacher(self) -> bool:
        """Whether the student learns from a teacher rather than from labels."""
        return self.policy in views.POLICIES

    def check_length(self, num_examples: int) -> None:
        """Raises DistillError where a batch or the warm-up is too large for `num_examples` images."""
        if self.batch_size > num_examples:
            raise DistillError(
                f"batch_size {self.batch_size} is larger than the data ({num_examples} training images); "
                f"choose batch_size <= {num_examples} or more train_images."
            )
        self.steps(num_examples)

    def steps(self, num_examples: int) -> int:
        """Training steps over `num_examples` images; raises DistillError where they are not more than the warm-up."""
        steps = round(self.epochs * num_examples / self.batch_size)
        if steps > MOST_STEPS:
            raise DistillError(f"{self.epochs:g} epochs of {num_examples} images are {steps} steps: choose fewer.")
        if steps <= self.warmup_steps:
            raise DistillError(
                f"{self.epochs:g} epochs of {num_examples} images are {steps} steps, not more than the "
                f"{self.warmup_steps} warm-up steps: raise epochs or lower warmup_steps."
            )
        return steps

    def run_id(self, teacher_sha256: str = "") -> str:
        """Policy, length and seed in clear, and a hash of all that decides the result; defaults are left out of it."""
        fields = dataclasses.fields(self)
        values = {field.name: getattr(self, field.name) for field in fields}
        decided = {field.name: values[field.name] for field in fields if values[field.name] != field.default}
        described = json.dumps(decided | {"teacher_sha256": teacher_sha256}, sort_keys=True)
        digest = hashlib.sha256(described.encode()).hexdigest()[:8]
        policy = self.policy.replace("/", "-")
        return f"{policy}_{self.epochs:g}ep_seed{self.seed}_{digest}"


_ANY = (
    dict.fromkeys(("dataset", "variant", "student", "teacher"), "")
    | dict.fromkeys(("epochs", "batch_size", "resolution", "temperature", "learning_rate"), 1)
    | {"policy": "labels", "weight_decay": 0, "warmup_steps": 0}
)
FILE = Path(__file__).parents[1] / "data" / "ranges.csv"
_RANGES = {
    name: (float(low), float(high), reason)
    for name, low, high, reason in [*csv.reader(FILE.read_text(encoding="utf-8").splitlines())][1:]
}
_NAMES = {
    "mixup": views.MIXUPS,
    "optimizer": optim.OPTIMIZERS,
    "schedule": optim.SCHEDULES,
    "decay": optim.DECAYS,
    "distance": tuple(losses.DISTANCES),
    "ensemble": ensemble.MEANS,
    "dtype": models.DTYPES,
    "compression": tuple(compression.FORMS),
    "on_divergence": ("stop", "rewind"),
}
_KINDS = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "str": (str, "text"),
    "bool": (bool, "true or false"),
}


def _check_types(recipe: Recipe) -> None:
    """Turns whole numbers given as floats, and lists, into the declared types; refuses anything else."""
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if field.name == "crop_area":
            pair = isinstance(value, (list, tuple)) and len(value) == 2
            if not pair or not all(type(part) in (int, float) and abs(part) < _ENDLESS for part in value):
                raise DistillError(f"crop_area must be two fractions such as [0.05, 1.0], got {value!r}.")
            object.__setattr__(recipe, field.name, (float(value[0]), float(value[1])))
            continue
        optional, (kind, words) = field.type.endswith("| None"), _KINDS[field.type.split()[0]]
        if value is None and optional:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _ENDLESS
        if kind in (int, float) and number and kind(value) == value:
            object.__setattr__(recipe, field.name, kind(value))
        elif kind in (int, float) or not isinstance(value, kind):
            raise DistillError(f"{field.name} must be {words}{' or None' if optional else ''}, got {value!r}.")
