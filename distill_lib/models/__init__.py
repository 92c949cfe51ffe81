"""Models by name; each family lives in a file of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_lib.errors import unknown

if TYPE_CHECKING:
    import flax.linen as nn
    import jax


def create(name: str, num_classes: int) -> nn.Module:
    """Builds the model of that name.

    Args:
        name: such as "bit_r50x1" or "bit_r11w8"; `names()` lists them.
        num_classes: length of the logits.

    Returns:
        A Flax module whose `apply({"params": params}, images)` maps images (batch, height, width, colours), float32 in
        [-1, 1], to logits (batch, num_classes).

    Raises:
        DistillError: if the name is unknown.
    """
    from distill_lib.models import bit

    module = bit.create(name, num_classes)
    if module is None:
        raise unknown("model", name, names())
    return module


def logits(model: nn.Module, params: dict, images: jax.Array) -> jax.Array:
    """Applies a model: images (batch, height, width, colours) in [-1, 1] to logits (batch, num_classes)."""
    import jax

    output = model.apply({"params": params}, images)
    assert isinstance(output, jax.Array)
    return output


def names() -> list[str]:
    """Names of the models that `create` builds."""
    from distill_lib.models import bit

    return bit.names()
