"""A student, or a teacher, for other programs: its weights as safetensors, or the network as ONNX or StableHLO.

    distill export results/fashion_quick/RUN --to safetensors
    distill export R50x1_224 --to onnx --output r50x1.onnx

Weights that timm knows are in its names and layout (`teachers.timm_names`), for `timm.create_model(NAME,
checkpoint_path=FILE)` with NAME as the metadata's `timm` says. StableHLO and ONNX need neither this library nor its
weights: `jax.export.deserialize(open(FILE, "rb").read()).call(images)`, and the session's `run(None, {"images":
images})`, float32 (batch, resolution, resolution, channels) in [-1, 1]. What it is stands in the metadata of
safetensors and ONNX, and in FILE.json beside StableHLO.
"""

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from distill_lib import datasets, models, records, teachers, weights
from distill_lib.errors import DistillError, unknown
from distill_lib.models import compression, layers
from distill_lib.models.ensemble import Member
from distill_lib.teachers import published, timm_names
from distill_lib.teachers.teacher import facts_of

FORMATS = ("safetensors", "onnx", "stablehlo")
Program = Callable[[jax.Array], jax.Array]
PLATFORMS = ("cpu", "cuda", "tpu")


def export(source: weights.File, to: str, output: Path | None = None, resolution: int | None = None) -> Path:
    """Writes a network in one of `FORMATS`, and returns the file; needs the extra `export`, or for ONNX `onnx`.

    `source` is a run's folder, its student.npz, or a teacher that is one network. The file is beside a run's student,
    else in the working folder; `resolution`, in pixels, that of the run, or the network's own. DistillError if the
    network is absent or damaged, its size unknown, or it cannot be written.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    folder = Path(source) / "student.npz"
    path = folder if folder.is_file() else teachers.resolve(str(source))
    facts, record = facts_of(path), records.load(path.parent)
    size = resolution or facts["resolution"] or (record["recipe"]["resolution"] if record else None)
    if size is None:
        raise DistillError(f"{path} does not say how large its images are: give their height in pixels (--resolution).")
    models.check_resolution(facts["model"], size)
    model, variables, shape = _loaded(path, facts["model"], size)
    about = _about(path, facts, record) | {"num_classes": model.num_classes, "image_shape": list(shape)}
    target = output or (path.parent if record else Path()) / f"{path.stem}.{to}"
    if to == "safetensors" and facts["compression"] != "none":
        raise DistillError(
            f"{path} is used as {facts['compression']}, which this format cannot say: export it to onnx."
        )
    frozen, constants = compression.frozen(model, variables, facts["compression"])
    member, constants = Member(frozen, None, facts["input_range"]), jax.tree.map(jnp.asarray, constants)

    def network(images: jax.Array) -> jax.Array:
        return member.logits(constants, images)

    of_network = about | {"input_range": [-1.0, 1.0]}  # it brings them into its own
    try:
        if to == "safetensors":
            weights.write_atomically(target, _safetensors(variables, about))
        elif to == "onnx":
            weights.write_atomically(target, _onnx(network, shape, of_network))
        else:
            weights.write_atomically(target, _stablehlo(network, shape))
            beside = target.with_name(f"{target.name}.json")
            weights.write_atomically(beside, json.dumps(of_network, indent=1).encode())
    except ImportError as error:
        extra = "onnx" if to == "onnx" else "export"
        raise DistillError(f"{to} needs {error.name}: pip install 'distill_lib[{extra}]'.") from error
    return target


def _loaded(path: Path, name: str, size: int) -> tuple[nn.Module, models.Variables, models.ImageShape]:
    colour, grey = (size, size, 3), (size, size, 1)
    flat = published.arrays(path, weights.flatten(weights.pack(models.shapes(models.create(name, 1), colour))))
    if "head/bias" not in flat:
        raise DistillError(f"{path} has no head, so that its classes are not known; choose another file.")
    model = models.create(name, len(flat["head/bias"]))
    with contextlib.suppress(DistillError):
        return model, published.load(path, model, colour), colour
    return model, published.load(path, model, grey), grey


def _about(path: Path, facts: dict[str, Any], record: records.Record | None) -> dict[str, Any]:
    about = {"model": facts["model"], "input_range": facts["input_range"], "sha256": weights.sha256(path)}
    if facts["model"] in timm_names.NETWORKS:
        about["timm"] = timm_names.NETWORKS[facts["model"]]
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
        flat = timm_names.to_timm(flat)
    return save({name: np.ascontiguousarray(value) for name, value in flat.items()}, _as_text(about))


def _as_text(about: dict[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}


def _onnx(network: Program, shape: models.ImageShape, about: dict[str, Any]) -> bytes:
    from jax2onnx import to_onnx

    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of every inner value without a type
    with layers.plain():
        graph = to_onnx(network, [("batch", *shape)], input_names=["images"], output_names=["logits"])
    _drop_biases_without_weight(graph.graph)
    for name, text in _as_text(about).items():
        graph.metadata_props.add(key=name, value=text)
    return bytes(graph.SerializeToString())


def _drop_biases_without_weight(graph: Any) -> None:
    """Of products that add nothing: the converter writes a scalar zero, over which ONNX Runtime's rounding stumbles."""
    silent = (node for node in graph.node if any((each.name, each.f) == ("beta", 0.0) for each in node.attribute))
    dropped = {node.input.pop() for node in silent if len(node.input) == 3}
    for constant in [each for each in graph.initializer if each.name in dropped]:
        graph.initializer.remove(constant)


def _stablehlo(network: Program, shape: models.ImageShape) -> bytes:
    import flatbuffers  # noqa: F401  # that `serialize` imports late

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return bytes(jax_export.export(jax.jit(network), platforms=PLATFORMS)(images).serialize())
