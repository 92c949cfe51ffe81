"""How close networks come to what a device can do: operations and bytes a second, beside measured peaks.

References:
    Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures",
    Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distill_lib.bench import timing

LONG_ENOUGH = 0.02  # seconds of one call: peaks are taken from matrices and vectors so large that a call takes longer
LEARNS = {"bit_r11w8": True, "bit_r11w24": False, "bit_r50x1": True, "bit_r152x2": False}
DTYPES = ("float32", "bfloat16")


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Measures peaks and networks in one run.

    Networks are in bfloat16 too on an accelerator; `--batch` takes the place of the small batches for CPUs.

    Returns:
        Rows of two kinds. "peak": the fastest matrix product of each dtype and the fastest triad. "network": seconds,
        operations (two for each multiply-accumulate of convolutions and matrix products), bytes that the compiled
        program's operations read and write by the compiler's own count, the rates, and the share of the peak.
    """
    import jax

    accelerator = jax.default_backend() != "cpu"
    options = timing.options(measure, arguments, rounds=7, models=tuple(LEARNS), batch=256 if accelerator else 0)
    peaks = {dtype: matrix_peak(dtype, options.rounds) for dtype in DTYPES}
    rows = [{"kind": "peak", "case": f"{name} matrix product"} | row for name, row in peaks.items()]
    rows.append({"kind": "peak", "case": "triad"} | triad_peak(options.rounds))
    return rows + [
        _network(name, dtype, options.batch, options.rounds, peaks[dtype]["FLOP/s"])
        for name in options.models
        for dtype in (DTYPES if accelerator else DTYPES[:1])
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


def _network(name: str, dtype: str, batch: int, rounds: int, peak: float) -> dict[str, Any]:
    """A student's loss and gradient, or the forward pass of a folded teacher."""
    from distill_lib.bench import networks
    from distill_lib.models import flops

    network, learns = networks.draw(name, dtype, batch), LEARNS[name]
    program = network.gradient() if learns else network.folded().forward()
    step = timing.interleaved({"step": program}, rounds=rounds)["step"]
    count, *shape = network.images.shape
    counted = 2.0 * flops.macs(network.model, tuple(shape)) * count * (3 if learns else 1)
    analysis = program.compiled.cost_analysis() or {}
    moved = float(analysis.get("bytes accessed", float("nan")))
    return {
        "kind": "network",
        "case": f"{name}, {'loss and gradient' if learns else 'forward'}",
        "dtype": dtype,
        "images": count,
        "side": shape[0],
        "step": step,
        "operations": counted,
        "operations by compiler": float(analysis.get("flops", float("nan"))),
        "bytes": moved,
        "FLOP/s": counted / step.median,
        "bytes/s": moved / step.median,
        "FLOP/byte": counted / moved,
        "share of peak": counted / step.median / peak,
        "images/s": count / step.median,
    }


def _grown(make: Callable[[int], Callable[[], Any]], size: int, rounds: int) -> tuple[int, float]:
    """Doubles a size until a call takes long enough; the size, and the seconds of the fastest call."""
    while True:
        function = make(size)
        function()
        fastest = min(timing.seconds(function) for _ in range(rounds))
        if fastest > LONG_ENOUGH:
            return size, fastest
        size *= 2
