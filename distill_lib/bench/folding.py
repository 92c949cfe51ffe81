"""What it saves to fold a frozen teacher: standardised weights, or BatchNorm in the convolutions, computed once."""

from __future__ import annotations

from typing import Any

from distill_lib.bench import timing

MODELS = ("bit_r11w24", "bit_r50x1", "bit_r152x2", "mobilenet_v3_large_bn", "efficientnet_lite0")


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times the forward pass of each model as it is trained and as it is frozen.

    Returns:
        A row a model: seconds of both, their ratio, and the largest difference of their logits.
    """
    options = timing.options(measure, arguments, rounds=7, models=MODELS)
    return [_row(name, options.rounds) for name in options.models]


def _row(name: str, rounds: int) -> dict[str, Any]:
    import jax.numpy as jnp

    from distill_lib.bench import networks

    network = networks.draw(name)
    programs = {"as trained": network.forward(), "folded": network.folded().forward()}
    expected, logits = (program() for program in programs.values())
    error = float(jnp.abs(logits - expected).max() / jnp.abs(expected).max())
    seconds = timing.interleaved(programs, rounds=rounds)
    ratio = seconds["as trained"].median / seconds["folded"].median
    sizes = {"model": name, "images": len(network.images), "side": network.images.shape[1]}
    return {**sizes, **seconds, "ratio": ratio, "relative error": error}
