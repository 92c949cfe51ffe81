"""How close networks come to what a device can do: operations and bytes a second, beside measured peaks.

References:
    Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures",
    Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distill_lib.bench import timing

if TYPE_CHECKING:
    import flax.linen as nn

LONG_ENOUGH = 0.02  # seconds of one call: peaks are taken from matrices and vectors so large that a call takes longer
CASES = (  # network, whether it learns, classes, images, side in pixels, colours
    ("bit_r11w8", True, 10, 128, 28, 1),
    ("bit_r11w24", False, 10, 128, 28, 1),
    ("bit_r50x1", True, 1000, 8, 128, 3),
    ("bit_r152x2", False, 1000, 4, 128, 3),
)


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Measures peaks and networks in one run.

    Args:
        arguments: `--rounds N`, `--models NAME ...`, `--dtypes NAME ...` (of networks: float32, and on accelerators
            bfloat16 too), `--batch N` (instead of the small batches for CPUs).

    Returns:
        Rows of two kinds. "peak": the fastest matrix product of each dtype and the fastest triad. "network": seconds,
        operations (two for each multiply-accumulate of convolutions and matrix products), bytes that the compiled
        program's operations read and write by the compiler's own count, the rates, and the share of the peak.
    """
    import jax

    accelerator = jax.default_backend() != "cpu"
    parser = timing.parser(measure, rounds=7)
    parser.add_argument("--models", nargs="+", default=[case[0] for case in CASES], choices=[case[0] for case in CASES])
    dtypes = ("float32", "bfloat16")
    parser.add_argument("--dtypes", nargs="+", default=dtypes if accelerator else dtypes[:1], choices=dtypes)
    parser.add_argument("--batch", type=int, default=256 if accelerator else None)
    options = parser.parse_args(arguments)
    peaks = {dtype: matrix_peak(dtype, options.rounds) for dtype in dtypes}
    rows: list[dict[str, Any]] = [
        {"kind": "peak", "case": f"{name} matrix product"} | row for name, row in peaks.items()
    ]
    rows.append({"kind": "peak", "case": "triad"} | triad_peak(options.rounds))
    return rows + [
        network(*case, dtype=dtype, batch=options.batch, peak=peaks[dtype]["FLOP/s"], rounds=options.rounds)
        for case in CASES
        if case[0] in options.models
        for dtype in options.dtypes
    ]


def matrix_peak(dtype: str, rounds: int) -> dict[str, Any]:
    """The fastest product of two square matrices: floating-point operations a second."""
    import jax
    import jax.numpy as jnp

    def product(side: int) -> Callable[[], Any]:
        left, right = (jax.random.normal(jax.random.key(seed), (side, side)).astype(dtype) for seed in (0, 1))
        multiply = jax.jit(lambda left, right: jnp.matmul(left, right, preferred_element_type=left.dtype))
        return lambda: jax.block_until_ready(multiply(left, right))

    side, seconds = _grown(product, 256, rounds)
    return {"size": side, "fastest": seconds, "FLOP/s": 2 * side**3 / seconds}


def triad_peak(rounds: int) -> dict[str, Any]:
    """The fastest a = b + 3 c of long float32 vectors: bytes read and written a second."""
    import jax

    def triad(length: int) -> Callable[[], Any]:
        b, c = (jax.random.normal(jax.random.key(seed), (length,)) for seed in (0, 1))
        added = jax.jit(lambda b, c: b + 3.0 * c)
        return lambda: jax.block_until_ready(added(b, c))

    length, seconds = _grown(triad, 2**22, rounds)
    return {"size": length, "fastest": seconds, "bytes/s": 3 * 4 * length / seconds}


def network(
    name: str, learns: bool, classes: int, images: int, side: int, colours: int, *, dtype: str, batch: int | None,
    peak: float, rounds: int,
) -> dict[str, Any]:  # fmt: skip
    """Times a network's forward pass, folded, or its loss and gradient, and counts what it computes.

    Args:
        name: of the model.
        learns: whether it is a student, with a gradient, or a frozen teacher.
        classes: length of the logits.
        images: a batch.
        side: of the images in pixels.
        colours: of the images.
        dtype: of the activations.
        batch: images instead of `images`.
        peak: operations a second of the fastest matrix product of that dtype.
        rounds: how often it is timed.
    """
    import jax

    from distill_lib import models
    from distill_lib.models import flops

    model, shape, count = models.create(name, classes, dtype), (side, side, colours), batch or images
    given = jax.random.uniform(jax.random.key(0), (count, *shape), minval=-1)
    compiled, variables = _program(model, learns, shape, given)
    seconds = timing.interleaved({"step": lambda: jax.block_until_ready(compiled(variables, given))}, rounds=rounds)
    counted = 2.0 * flops.macs(model, shape) * count * (3 if learns else 1)
    analysis = compiled.cost_analysis() or {}
    moved, median = float(analysis.get("bytes accessed", float("nan"))), seconds["step"].median
    case: dict[str, Any] = {
        "kind": "network",
        "case": f"{name}, {'loss and gradient' if learns else 'forward'}",
        "dtype": dtype,
    }
    case |= {"images": count, "side": side, **seconds, "operations": counted}
    case |= {"operations by compiler": float(analysis.get("flops", float("nan"))), "bytes": moved}
    rates = {"FLOP/s": counted / median, "bytes/s": moved / median, "FLOP/byte": counted / moved}
    return case | rates | {"share of peak": counted / median / peak, "images/s": count / median}


def _program(model: nn.Module, learns: bool, shape: tuple[int, int, int], images: Any) -> tuple[Any, Any]:
    """The compiled program of (variables, images), and variables for it."""
    import jax

    from distill_lib import models

    variables = models.init(model, jax.random.key(1), shape)
    if not learns:
        model, variables = models.fold(model, variables)
        run = jax.jit(lambda given, images: models.logits(model, given, images))
        return run.lower(variables, images).compile(), variables

    def loss(params: dict, images: jax.Array) -> jax.Array:
        logits, _ = models.train_logits(model, {"params": params}, images)
        return jax.nn.logsumexp(logits, axis=-1).mean() - logits.mean()

    return jax.jit(jax.value_and_grad(loss)).lower(variables["params"], images).compile(), variables["params"]


def _grown(make: Callable[[int], Callable[[], Any]], size: int, rounds: int) -> tuple[int, float]:
    """Doubles a size until a call takes long enough; the size, and the seconds of the fastest call."""
    while True:
        function = make(size)
        function()
        fastest = min(timing.seconds(function) for _ in range(rounds))
        if fastest > LONG_ENOUGH:
            return size, fastest
        size *= 2
