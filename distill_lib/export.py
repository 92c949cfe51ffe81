"""A student, or a teacher, for other programs: its weights as safetensors, or the network itself as StableHLO.

    distill export results/fashion_quick/RUN --to safetensors
    distill export R50x1_224 --to stablehlo --output r50x1.stablehlo

Weights that timm knows are in its names and layout (timm, models/resnetv2.py), for `timm.create_model(NAME,
checkpoint_path=FILE)` with NAME as the metadata's `timm` says. StableHLO needs neither this library nor its weights:
`jax.export.deserialize(open(FILE, "rb").read()).call(images)`, float32 (batch, resolution, resolution, channels) in
[-1, 1]. What it is stands in the metadata of safetensors, and in FILE.json beside StableHLO.
"""

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from distill_lib import datasets, models, records, teachers, weights
from distill_lib.errors import DistillError, unknown
from distill_lib.models.ensemble import Member
from distill_lib.teachers import bit_names, published
from distill_lib.teachers.teacher import facts_of

FORMATS = ("safetensors", "stablehlo")
PLATFORMS = ("cpu", "cuda", "tpu")
TIMM = {f"bit_r{size}": f"resnetv2_{size}_bit" for size in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")}
"""Models that timm has, by their names here."""

_TIMM_PARTS = (
    (r"block(\d+)/unit(\d+)/", lambda match: f"stages.{int(match[1]) - 1}.blocks.{int(match[2]) - 1}."),
    (r"gn(\d)/", r"norm\1/"),
    (r"conv_proj/", "downsample.conv/"),
    (r"root_block/conv_root/", "stem.conv/"),
    (r"norm-pre-head/", "norm/"),
    (r"^head/", "head.fc/"),
    (r"/(kernel|scale)$", ".weight"),
    (r"/bias$", ".bias"),
)


def export(network: weights.File, to: str, output: Path | None = None, resolution: int | None = None) -> Path:
    """Writes a network for other programs, and returns the file; needs the extra `distill_lib[export]`.

    `network` is a run's folder, its student.npz, or a teacher that is one network, and `to` one of `FORMATS`. `output`
    is beside a run's student, else in the working folder; `resolution`, in pixels, that of the run, or the network's
    own. DistillError if the network is absent or damaged, its size unknown, or it cannot be written.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    folder = Path(network) / "student.npz"
    path = folder if folder.is_file() else teachers.resolve(str(network))
    facts, record = facts_of(path), records.load(path.parent)
    size = resolution or facts["resolution"] or (record["recipe"]["resolution"] if record else None)
    if size is None:
        raise DistillError(f"{path} does not say how large its images are: give their height in pixels (--resolution).")
    models.check_resolution(facts["model"], size)
    model, variables, shape = _loaded(path, facts["model"], size)
    about = _about(path, facts, record) | {"num_classes": model.num_classes, "image_shape": list(shape)}
    target = output or (path.parent if record else Path()) / f"{path.stem}.{to}"
    try:
        if to == "safetensors":
            weights.write_atomically(target, _safetensors(variables, about))
        else:
            weights.write_atomically(target, _stablehlo(Member(model, size, facts["input_range"]), variables, shape))
            weights.write_atomically(target.with_name(f"{target.name}.json"), json.dumps(about, indent=1).encode())
    except ImportError as error:
        raise DistillError(f"{to} needs {error.name}: pip install 'distill_lib[export]'.") from error
    return target


def _loaded(path: Path, name: str, size: int) -> tuple[nn.Module, models.Variables, models.ImageShape]:
    """The model, its variables and the shape of its images, colour where that fits."""
    flat = bit_names.to_ours(weights.flatten(weights.load_npz(path)))
    if "head/bias" not in flat:
        raise DistillError(f"{path} has no head, so that its classes are not known; choose another file.")
    model, colour, grey = models.create(name, len(flat["head/bias"])), (size, size, 3), (size, size, 1)
    with contextlib.suppress(DistillError):
        return model, published.load(path, model, colour), colour
    return model, published.load(path, model, grey), grey


def _about(path: Path, facts: dict[str, Any], record: records.Record | None) -> dict[str, Any]:
    about = {"model": facts["model"], "input_range": facts["input_range"], "sha256": weights.sha256(path)}
    if facts["model"] in TIMM:
        about["timm"] = TIMM[facts["model"]]
    if record:
        recipe = record["recipe"]
        with contextlib.suppress(DistillError):  # of a set, or a folder, that is not at hand any more
            about["class_names"] = list(datasets.class_names(recipe["dataset"]))
        about |= {name: record[name] for name in ("run_id", "commit", "date", "teacher", "mock")}
        about |= {name: recipe[name] for name in ("dataset", "policy", "epochs", "seed")}
    return about


def _safetensors(variables: models.Variables, about: dict[str, Any]) -> bytes:
    from safetensors.numpy import save

    flat = weights.flatten(weights.pack(variables))
    if "timm" in about:
        flat = dict(_in_timm(name, value) for name, value in flat.items())
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    return save({name: np.ascontiguousarray(value) for name, value in flat.items()}, metadata)


def _in_timm(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """An array as timm names and lays it out: convolutions (out, in, H, W), the head one of 1 x 1, else vectors."""
    if name.endswith("/kernel"):
        value = (value[None, None] if name == "head/kernel" else value).transpose(3, 2, 0, 1)
    else:
        value = value.reshape(-1)
    for pattern, theirs in _TIMM_PARTS:
        name = re.sub(pattern, theirs, name)
    return name, value


def _stablehlo(member: Member, variables: models.Variables, shape: models.ImageShape) -> bytes:
    import flatbuffers  # noqa: F401  # that `serialize` imports late

    frozen, constants = member.model.fold(variables)
    member, constants = replace(member, model=frozen), jax.tree.map(jnp.asarray, constants)

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        return member.logits(constants, images)

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return bytes(jax_export.export(logits, platforms=PLATFORMS)(images).serialize())
