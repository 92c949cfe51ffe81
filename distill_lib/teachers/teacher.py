"""A teacher is logits(images): frozen networks, folded once, or a table of outputs that were computed once."""

import functools
import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib import models, views, weights
from distill_lib.errors import DistillError, unknown
from distill_lib.models import compression
from distill_lib.models.ensemble import Ensemble, Member
from distill_lib.teachers import function, published, timm_names

_FILES = Path(__file__).parents[1] / "data" / "teachers"
WEAKER = ("fashion_1ep", "fashion_4ep", "fashion_w8", "fashion_w16", "fashion_seed1")  # or as good; in float16
EMBEDDED = {
    "fashion": _FILES / "fashion_bit_r11w24.npz",
    "fashion_vit": _FILES / "fashion_vit_d4w64p7.npz",
    "imagenet_lite0": _FILES / "imagenet_efficientnet_lite0.npz",
} | {name: _FILES / f"{name}.npz" for name in WEAKER}
"""Teachers that come with the package, by name."""

MOCK = "mock"
"""Name of the teacher with random weights that smoke runs on mock data learn from."""

_ANY: dict[str, Any] = {
    "resolution": None,
    "input_range": [-1.0, 1.0],
    "compression": "none",
}  # where a checkpoint says nothing else
_AT = re.compile(r"(.*?)(?:@([1-9]\d*))?", re.DOTALL)  # a name, and the side that it is shown

Variables = tuple[models.Variables, ...]


@dataclass(frozen=True)
class Teacher:
    """Frozen networks that answer with one voice; most often it is one network."""

    name: str  #: how it was asked for
    ensemble: Ensemble  #: the networks, and what each wants to see
    variables: Variables  #: of each network
    sha256: str  #: of the checkpoint file, or of all of them; part of the identity of every run that learns from it
    channels: int | None = None  #: channels that it was made for; None takes any

    @property
    def has_features(self) -> bool:
        """Whether the features that its logits are made of are known, too."""
        return not any(isinstance(member.model, function.FunctionModel) for member in self.ensemble.members)

    def logits(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Images (batch, size, size, channels), uint8 or float32 in [-1, 1], to logits; DistillError for others."""
        pixels = views.normalize(images)
        if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2] or self.channels not in (None, pixels.shape[3]):
            raise DistillError(
                f"teacher {self.name} is shown images of shape {pixels.shape}; it takes (batch, size, size, "
                f"{self.channels or 'channels'})."
            )

        def show(size: int | None) -> jax.Array:
            if size in (None, pixels.shape[1]):
                return pixels
            return views.render(pixels, views.still(len(pixels)), size)

        return self.ensemble.logits(self.variables, show)


def load(
    name: str, *, num_classes: int, channels: int, resolution: int, ensemble: str = "logits", dtype: str = "float32"
) -> Teacher:
    """Loads a teacher for images of these classes, channels and views, and computes once what never changes about it.

    The name is in `EMBEDDED`, published, a path (an .npz that names its model, or timm's: see `timm_names`),
    MODULE:FUNCTION (see `teachers.function`), or "mock"; "fashion@36" is shown views of 36 pixels. Several with " + "
    between are an ensemble, which averages "logits" or "probabilities". DistillError where one does not fit.
    """
    loaded = [_member(*part, num_classes, (resolution, resolution, channels), dtype) for part in parts(name)]
    members, variables, hashes = zip(*loaded, strict=True)
    sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()
    return Teacher(name, Ensemble(members, ensemble), variables, sha256, channels)


def names() -> list[str]:
    """Teachers that `load` knows by name."""
    return [*EMBEDDED, *published.CHECKPOINTS, MOCK]


def parts(name: str) -> list[tuple[str, int | None]]:
    """The networks of a teacher's name: own name, and side in pixels behind an "@"; DistillError if it is none."""
    named: list[tuple[str, int | None]] = []
    for part in re.split(r"\s\+\s", f"{name} "):  # a last plus has nothing behind it
        own, side = _AT.fullmatch(part.strip()).groups()  # type: ignore[union-attr]  # it matches anything
        if own not in names() and not own.endswith(published.SUFFIXES) and not function.NAME.fullmatch(own):
            raise unknown(
                "teacher", own, [*names(), f"a path ending in {' or '.join(published.SUFFIXES)}", "MODULE:FUNCTION"]
            )
        if side and (len(side) > 9 or int(side) > models.MOST_PIXELS):
            raise DistillError(f"teacher {own} is to be shown {side:.9} pixels; at most {models.MOST_PIXELS} are.")
        named.append((own, int(side) if side else None))
    return named


def resolve(name: str) -> Path:
    """Path of the checkpoint that a name in `EMBEDDED`, a published name or a path stands for; raises DistillError."""
    return EMBEDDED[name] if name in EMBEDDED else published.resolve(name)


def network(name: str) -> tuple[str, int | None]:
    """Model of a published or embedded teacher, and its own side in pixels, if any; DistillError for others."""
    if name in published.CHECKPOINTS:
        return published.CHECKPOINTS[name].model, published.CHECKPOINTS[name].resolution
    if name in EMBEDDED:
        facts = facts_of(EMBEDDED[name])
        return facts["model"], facts["resolution"]
    raise unknown("teacher", name, [*EMBEDDED, *published.CHECKPOINTS])


def _member(
    name: str, side: int | None, num_classes: int, image_shape: tuple[int, int, int], dtype: str
) -> tuple[Member, models.Variables, str]:
    if function.NAME.fullmatch(name):
        asked, sha256 = function.load(name, num_classes, (side, side, image_shape[2]) if side else image_shape)
        return Member(asked, side), {}, sha256
    if name == MOCK:
        model, variables, sha256 = *_mock(num_classes, image_shape, dtype), "mock"
        facts = _ANY | {"resolution": side}
    else:
        path = resolve(name)
        facts = facts_of(path) | ({"resolution": side} if side else {})
        model, own = models.create(facts["model"], num_classes, dtype), facts["resolution"]
        variables = published.load(path, model, (own, own, image_shape[2]) if own else image_shape)
        sha256 = weights.sha256(path)
    model, variables = compression.frozen(model, variables, facts["compression"])
    low, high = (tuple(map(float, end)) if isinstance(end, list) else float(end) for end in facts["input_range"])
    member = Member(model, facts["resolution"], (low, high))
    return member, jax.tree.map(jnp.asarray, variables), sha256


def facts_of(path: Path) -> dict[str, Any]:
    """`model` (name), `resolution` (pixels or None), `input_range` and `compression` of a checkpoint.

    DistillError if it does not name its model, or has a wrong one of the others.
    """
    facts = timm_names.facts(path) if path.suffix == timm_names.SUFFIX else weights.load_metadata(path)
    known = {checkpoint.file: checkpoint for checkpoint in published.CHECKPOINTS.values()}
    if "model" not in facts and path.name in known:
        facts = {"model": known[path.name].model, "resolution": known[path.name].resolution}
    if "model" not in facts:
        raise DistillError(f"{path} does not say which model it holds; save it with metadata={{'model': ...}}.")
    facts = _ANY | facts
    side, limits = facts["resolution"], facts["input_range"]
    ends = limits if isinstance(limits, list) else []
    per_channel = ends if all(isinstance(end, list) for end in ends) else [[end] for end in ends]
    numbers = all(type(limit) in (int, float) and abs(limit) < 1e6 for end in per_channel for limit in end)
    sound = {
        "model": isinstance(facts["model"], str),
        "resolution": side is None or (type(side) is int and 0 < side <= models.MOST_PIXELS),
        "compression": facts["compression"] in tuple(compression.FORMS),
        "input_range": numbers
        and len(ends) == 2
        and all(low != high for low, high in itertools.zip_longest(*per_channel)),
    }
    for name in (name for name, right in sound.items() if not right):
        raise DistillError(f"{path} says that its {name} is {str(facts[name])[:40]!r}: save it with a right one.")
    return facts


@functools.lru_cache(maxsize=8)
def _mock(num_classes: int, image_shape: tuple[int, int, int], dtype: str) -> tuple[Any, models.Variables]:
    model = models.create("bit_r11w8", num_classes, dtype)
    variables = models.init(model, jax.random.key(0), image_shape)
    head = variables["params"]["head"]
    head["kernel"] = jax.random.normal(jax.random.key(1), head["kernel"].shape)
    return model, variables
