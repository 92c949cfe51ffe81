"""Teachers of any framework: a Python function that gives logits for images, in the place of a network.

`--teacher my_teacher:logits` asks `logits` of the module `my_teacher` for logits (batch, classes) of the very views
that students see, NumPy float32 (batch, size, size, channels) in [-1, 1]. Whatever else it depends on belongs into an
attribute, `logits.version = "..."`: runs are known by it and by the source of the module.
"""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_lib.errors import DistillError, logger

NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")  # MODULE:FUNCTION


@dataclass(eq=False)
class FunctionModel:
    """Asks a function of the host from within a jitted program, as `models.logits` asks a module."""

    name: str  #: what it is asked for by
    function: Callable[[np.ndarray], Any]  #: of images (batch, size, size, channels), float32 in [-1, 1], to logits
    num_classes: int
    failed: bool = False  #: whether it has failed; it is not asked again

    def ask(self, images: np.ndarray) -> np.ndarray:
        """Logits (batch, classes) float32; raises DistillError where the function fails or gives anything else."""
        try:
            answers = np.asarray(self.function(images), np.float32)
        except Exception as error:  # a stranger's code
            raise DistillError(f"teacher {self.name} failed: {_reason(error)}; mend it.") from error
        finite = np.isfinite(answers).all()
        if answers.shape != (len(images), self.num_classes) or not finite:
            raise DistillError(
                f"teacher {self.name} is to give {self.num_classes} finite logits for each of {len(images)} images, "
                f"and gave an array of shape {answers.shape}{'' if finite else ', not all finite'}."
            )
        return answers

    def apply(self, variables: Any, images: jax.Array) -> jax.Array:
        """Maps images to logits as a Flax module does; where the function fails, which is logged, to NaN."""
        shape = jax.ShapeDtypeStruct((len(images), self.num_classes), jnp.float32)
        return jnp.asarray(jax.pure_callback(self._or_nan, shape, images, vmap_method="sequential"))

    def _or_nan(self, images: jax.Array) -> np.ndarray:
        if not self.failed:
            try:
                return self.ask(np.asarray(images))
            except DistillError as error:  # raised in a program, it would be a traceback of many lines
                logger.error("%s", error)
                self.failed = True
        return np.full((len(images), self.num_classes), np.nan, np.float32)


def load(name: str, num_classes: int, image_shape: tuple[int, int, int]) -> tuple[FunctionModel, str]:
    """Imports MODULE:FUNCTION, and asks it once: the model, and a digest of its source, name and `version`.

    DistillError if it cannot be imported or fails, or on several CPU devices, where XLA would wait for itself.
    """
    if jax.process_count() > 1 or (jax.default_backend() == "cpu" and jax.device_count() > 1):
        raise DistillError(
            f"teacher {name} is a Python function, which several CPU devices cannot ask, nor several processes: use "
            "one, or store its soft labels with one (distill soft-labels)."
        )
    module_name, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, attribute)
    except Exception as error:  # a stranger's code
        raise DistillError(
            f"teacher {name} cannot be imported ({_reason(error)}); name MODULE:FUNCTION, where MODULE lies in the "
            "working folder or is installed."
        ) from error
    if not callable(function):
        raise DistillError(f"teacher {name} is no function but {type(function).__name__}; name a function of images.")
    model = FunctionModel(name, function, num_classes)
    model.ask(np.zeros((2, *image_shape), np.float32))
    file, version = getattr(module, "__file__", None), f"{name} {getattr(function, 'version', '')} "
    return model, hashlib.sha256(version.encode() + (Path(file).read_bytes() if file else b"")).hexdigest()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
