"""Where a student's step goes: what normalisation and weight standardisation cost, and what a perfect one would.

Each is left out of an otherwise equal program, and the programs are timed in turn. The least that a GroupNorm can take
is the time to read and write its activations as often as it has to, at the device's own speed: forward it reads them
for the sums and again to normalise, and writes; backward it reads activations and gradients twice, and writes. A
profile of the same program then says which kinds of operations the time went into.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_lib.bench import roofline, timing

PASSES = 8  # over the activations of a GroupNorm, forward (3) and backward (5)
MODELS = ("bit_r11w8", "bit_r50x1")
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

    Returns:
        Rows of two kinds. "left out": seconds of a program, the share of the whole one that the part takes, the seconds
        that a perfect one would take, and what is left on the table, as a share of the whole. "operations": the share
        of the profiled time by kind of operation.
    """
    options = timing.options(measure, arguments, rounds=15, models=MODELS)
    speed = roofline.triad_peak(options.rounds)["bytes/s"]
    return [row for name in options.models for row in _rows(name, speed, options.rounds)]


def left_on_the_table(whole: float, without: float, least: float) -> dict[str, float]:
    """The share of a part in a program's seconds, and of what a part that takes its least time would save."""
    part = whole - without
    return {"share": part / whole, "least (s)": least, "left on the table": max(0.0, part - least) / whole}


def kinds_of(program: str) -> dict[str, str]:
    """The kind of every operation in a compiled program's text, by name; a fusion is what is inside it."""
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


def _rows(name: str, speed: float, rounds: int) -> list[dict[str, Any]]:
    from distill_lib.bench import networks

    network = networks.draw(name)
    about = {"model": name, "images": len(network.images)}
    programs = {
        WHOLE: network.gradient(),
        NO_NORM: network.gradient(norms=False),
        NO_STANDARD: dataclasses.replace(network, model=network.model.clone(folded=True)).gradient(),
    }
    seconds = timing.interleaved(programs, rounds=rounds)
    least = {NO_NORM: PASSES * network.norm_bytes() / speed, NO_STANDARD: 0.0}
    rows: list[dict[str, Any]] = [{"kind": "left out", **about, "case": WHOLE, "step": seconds[WHOLE]}]
    for case, shortest in least.items():
        parts = left_on_the_table(seconds[WHOLE].median, seconds[case].median, shortest)
        rows.append({"kind": "left out", **about, "case": case, "step": seconds[case], **parts})
    shares = _profiled(programs[WHOLE], kinds_of(programs[WHOLE].compiled.as_text()))
    return rows + [{"kind": "operations", **about, "case": kind, "share": share} for kind, share in shares.items()]


def _profiled(run: Callable[[], Any], kinds: dict[str, str], calls: int = 5) -> dict[str, float]:
    """Shares of the profiled time by kind of operation, the largest first."""
    import jax

    spent: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                run()
        profiles = [jax.profiler.ProfileData.from_file(str(path)) for path in Path(folder).rglob("*.xplane.pb")]
        lines = [line for profile in profiles for plane in profile.planes for line in plane.lines]
        for event in (event for line in lines for event in line.events if "hlo_op" in dict(event.stats)):
            spent[kinds.get(event.name, "other")] += event.duration_ns
    return {kind: duration / spent.total() for kind, duration in spent.most_common()}
