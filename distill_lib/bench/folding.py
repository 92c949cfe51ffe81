"""What it saves to fold a frozen teacher: standardised weights, or BatchNorm in the convolutions, computed once."""

from __future__ import annotations

from typing import Any

from distill_lib.bench import timing

CASES = (  # model, classes, images, side in pixels, colours
    ("bit_r11w24", 10, 128, 28, 1),
    ("bit_r50x1", 1000, 8, 128, 3),
    ("bit_r152x2", 1000, 4, 128, 3),
    ("mobilenet_v3_large_bn", 1000, 8, 224, 3),
    ("efficientnet_lite0", 1000, 8, 224, 3),
)


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times the forward pass of each model as it is trained and as it is frozen.

    Args:
        arguments: `--rounds N`, `--models NAME ...`.

    Returns:
        A row a model: seconds of both, their ratio, and the largest difference of their logits.
    """
    parser = timing.parser(measure, rounds=7)
    parser.add_argument("--models", nargs="+", default=[case[0] for case in CASES], choices=[case[0] for case in CASES])
    options = parser.parse_args(arguments)
    return [_row(*case, rounds=options.rounds) for case in CASES if case[0] in options.models]


def _row(name: str, num_classes: int, batch: int, side: int, colours: int, *, rounds: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from distill_lib import models

    model = models.create(name, num_classes)
    images = jax.random.uniform(jax.random.key(0), (batch, side, side, colours), minval=-1)
    variables = models.init(model, jax.random.key(1), (side, side, colours))
    head = variables["params"]["head"]
    head["kernel"] = jax.random.normal(jax.random.key(2), head["kernel"].shape)
    frozen, folded = models.fold(model, variables)
    trained = jax.jit(lambda given: models.logits(model, given, images))
    once = jax.jit(lambda given: models.logits(frozen, given, images))
    expected = trained(variables)
    error = float(jnp.abs(once(folded) - expected).max() / jnp.abs(expected).max())
    seconds = timing.interleaved(
        {
            "as trained": lambda: jax.block_until_ready(trained(variables)),
            "folded": lambda: jax.block_until_ready(once(folded)),
        },
        rounds=rounds,
    )
    ratio = seconds["as trained"].median / seconds["folded"].median
    return {"model": name, "images": batch, "side": side, **seconds, "ratio": ratio, "relative error": error}
