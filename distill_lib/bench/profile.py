"""Where a student's step goes: what normalisation and weight standardisation cost, and what a perfect one would.

Each is left out of an otherwise equal program, and the programs are timed in turn. The least that a GroupNorm can take
is the time to read and write its activations as often as it has to, at the device's own speed: forward it reads them
for the sums and again to normalise, and writes; backward it reads activations and gradients twice, and writes. A
profile of the same program then says which kinds of operations the time went into.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib.bench import roofline, timing

if TYPE_CHECKING:
    import flax.linen as nn

PASSES = 8  # over the activations of a GroupNorm, forward (3) and backward (5)
CASES = (("bit_r11w8", 10, 128, 28, 1), ("bit_r50x1", 1000, 8, 128, 3))  # network, classes, images, pixels, colours
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = .*?\s([a-z][\w\-]*)\(")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
WHOLE, NO_NORM, NO_STANDARD = "as it is", "without GroupNorm", "without standardisation"
KINDS = (  # of operations; the first that fused operations hold one of
    ("convolutions", {"convolution"}),
    ("matrix products", {"dot"}),
    ("library calls", {"custom-call"}),
    ("sums", {"reduce", "reduce-window"}),
    (
        "element-wise",
        {"add", "subtract", "multiply", "divide", "maximum", "select", "compare", "rsqrt", "convert", "exponential"},
    ),
)


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Times loss and gradient with and without, and profiles them.

    Args:
        arguments: `--rounds N`, `--models NAME ...`.

    Returns:
        Rows of two kinds. "left out": seconds of a program, the share of the whole one that the part takes, the seconds
        that a perfect one would take, and what is left on the table, as a share of the whole. "operations": the share
        of the profiled time by kind of operation.
    """
    parser = timing.parser(measure, rounds=15)
    parser.add_argument("--models", nargs="+", default=[case[0] for case in CASES], choices=[case[0] for case in CASES])
    options = parser.parse_args(arguments)
    speed = roofline.triad_peak(options.rounds)["bytes/s"]
    return [row for case in CASES if case[0] in options.models for row in _rows(*case, speed, options.rounds)]


def left_on_the_table(whole: float, without: float, least: float) -> dict[str, float]:
    """What a part of a program takes, and how much of that a perfect part would save.

    Args:
        whole: seconds of the program.
        without: seconds of the program without the part.
        least: seconds that the part takes at least.

    Returns:
        Shares of the whole: of the part, and of what is above its least time.
    """
    part = whole - without
    return {"share": part / whole, "least (s)": least, "left on the table": max(0.0, part - least) / whole}


def kinds_of(program: str) -> dict[str, str]:
    """The kind of every operation of a compiled program.

    Args:
        program: its text, as `compiled.as_text()` gives it. A fusion is what the operations inside it are.

    Returns:
        A key of `KINDS`, or "copies", by the operation's name.
    """
    inside: dict[str, set[str]] = {}
    calls: dict[str, tuple[str, str]] = {}
    where = ""
    for line in program.splitlines():
        if opened := _COMPUTATION.match(line):
            where = opened[1]
        elif found := _OPERATION.match(line):
            name, opcode = found.groups()
            inside.setdefault(where, set()).add(opcode)
            called = _CALLED.search(line)
            calls[name] = (opcode, called[1] if called and opcode in ("fusion", "call") else "")
    return {name: _kind({opcode, *inside.get(called, ())}) for name, (opcode, called) in calls.items()}


def _kind(opcodes: set[str]) -> str:
    for kind, marks in KINDS:
        if opcodes & marks:
            return kind
    return "copies"


def _rows(
    name: str, classes: int, images: int, side: int, colours: int, speed: float, rounds: int
) -> list[dict[str, Any]]:
    import jax

    from distill_lib import models

    model, shape = models.create(name, classes), (side, side, colours)
    given = jax.random.uniform(jax.random.key(0), (images, *shape), minval=-1)
    variables = models.init(model, jax.random.key(1), shape)
    variables["params"]["head"]["kernel"] += 0.01  # a head of zeros would leave the gradient nothing to do
    programs = {
        WHOLE: _gradient(model, variables, given),
        NO_NORM: _gradient(model, variables, given, norms=False),
        NO_STANDARD: _gradient(model.clone(folded=True), variables, given),
    }
    forms = {name: _waited(program, variables["params"]) for name, program in programs.items()}
    seconds = timing.interleaved(forms, rounds=rounds)
    least = {WHOLE: 0.0, NO_NORM: PASSES * _norm_bytes(model, variables, given) / speed, NO_STANDARD: 0.0}
    rows: list[dict[str, Any]] = []
    for form in forms:
        row = {"kind": "left out", "model": name, "images": images, "case": form, "step": seconds[form]}
        parts = left_on_the_table(seconds[WHOLE].median, seconds[form].median, least[form])
        rows.append(row | (parts if form != WHOLE else {}))
    shares = _profiled(forms[WHOLE], kinds_of(programs[WHOLE].as_text()))
    return rows + [
        {"kind": "operations", "model": name, "images": images, "case": kind, "share": share}
        for kind, share in shares.items()
    ]


def _gradient(model: nn.Module, variables: Any, images: Any, *, norms: bool = True) -> Any:
    """Loss and gradient of parameters, compiled, with every GroupNorm or with none."""
    import flax.linen as nn
    import jax

    from distill_lib import models
    from distill_lib.models.group_norm import GroupNorm

    def skip(call: Callable, arguments: tuple, options: dict, context: nn.module.InterceptorContext) -> Any:
        return arguments[0] if isinstance(context.module, GroupNorm) else call(*arguments, **options)

    def loss(params: dict) -> jax.Array:
        logits = models.train_logits(model, {"params": params}, images)[0]
        return jax.nn.logsumexp(logits, axis=-1).mean() - logits.mean()

    def without(params: dict) -> jax.Array:
        with nn.intercept_methods(skip):
            return loss(params)

    return jax.jit(jax.value_and_grad(loss if norms else without)).lower(variables["params"]).compile()


def _waited(program: Any, params: dict) -> Callable[[], Any]:
    import jax

    return lambda: jax.block_until_ready(program(params))


def _norm_bytes(model: nn.Module, variables: Any, images: Any) -> int:
    """Bytes of all activations that a GroupNorm normalises in one forward pass."""
    import flax.linen as nn
    import jax

    from distill_lib import models
    from distill_lib.models.group_norm import GroupNorm

    sizes: list[int] = []

    def count(call: Callable, arguments: tuple, options: dict, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, GroupNorm):
            sizes.append(arguments[0].size * arguments[0].dtype.itemsize)
        return call(*arguments, **options)

    with nn.intercept_methods(count):
        jax.eval_shape(lambda given: models.logits(model, given, images), variables)
    return sum(sizes)


def _profiled(run: Callable[[], Any], kinds: dict[str, str], calls: int = 5) -> dict[str, float]:
    """Shares of the profiled time by kind of operation, the largest first."""
    import jax

    run()
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                run()
        for path in Path(folder).rglob("*.xplane.pb"):
            for operation, duration in _operations(jax.profiler.ProfileData.from_file(str(path))):
                kind = kinds.get(operation, "other")
                spent[kind] = spent.get(kind, 0.0) + duration
    total = sum(spent.values())
    return {kind: spent[kind] / total for kind in sorted(spent, key=lambda kind: -spent[kind])}


def _operations(profile: Any) -> list[tuple[str, float]]:
    """Name and duration of everything in a profile that is an operation of a compiled program."""
    return [
        (event.name, event.duration_ns)
        for plane in profile.planes
        for line in plane.lines
        for event in line.events
        if "hlo_op" in dict(event.stats)
    ]
