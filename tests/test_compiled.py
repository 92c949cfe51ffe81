"""Programs for accelerators: what would be amiss is seen, and a compiler that dies is told as one problem."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from compiled import __main__ as compiling
from compiled import check, programs

from distill_lib import recipes, sharding, teachers, views
from distill_lib.errors import DistillError
from distill_lib.report import benchmarks

ROOMY = check.Target("cpu", "", 1.0)


def checked(program: Any, *arguments: Any, target: check.Target = ROOMY, limit: int = 0, leaves: int = 0) -> str:
    """The problems of a program for the two devices of the tests."""
    lowered = program.lower(*arguments)
    return check.check(lowered, target, dtype="bfloat16", limit=limit, leaves=leaves)["problems"]


def batch(*shape: int, dtype: Any = jnp.float32) -> Any:
    """An array that is split over the devices, as a program is told of it."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.split(sharding.data_mesh()))


def test_cases_name_what_there_is() -> None:
    """Recipes and programs of all sizes; every policy is compiled, and none twice."""
    made = programs.lowered(recipes.get("fashion", "quick"), sharding.data_mesh())
    assert all(case.size in check.SIZES and set(case.parts) <= set(made) for case in check.CASES)
    rows = [(case.name, case.recipe().policy, case.recipe().dtype) for case in check.CASES]
    assert len(set(rows)) == len(rows)
    assert {policy for name, policy, _ in rows if name == "fashion"} >= set(views.POLICIES)
    sides = {case.name: teachers.parts(case.recipe().teacher)[0][1] for case in check.CASES}
    assert {name for name, side in sides.items() if side} == {"imagenet, teacher at 384"}


def test_a_gather_of_the_batch_is_seen_and_a_roll_passes() -> None:
    """A roll sends one row from each device to the next, 12 bytes here."""
    order = jnp.array([3, 2, 1, 0])
    gathered = checked(jax.jit(lambda x: x[order] + 1), batch(4, 3), limit=12)
    assert "a collective moves" in gathered
    weight = jnp.array([0.1, 0.2, 0.3, 0.4])
    mixed = jax.jit(lambda x: views.mix(x, views.View(jnp.zeros((4, 4)), jnp.zeros(4, bool), weight)))
    assert checked(mixed, batch(4, 3), limit=12) == ""


def test_a_state_that_is_copied_is_seen() -> None:
    """Each of its arrays has to be updated in place."""
    assert "0 of 1 arrays" in checked(jax.jit(lambda x: x + 1), batch(4, 3), leaves=1)
    assert checked(jax.jit(lambda x: x + 1, donate_argnums=0), batch(4, 3), leaves=1) == ""


def test_calls_of_the_host_are_seen() -> None:
    """A print that was left in a step, for one."""

    def talkative(x: jax.Array) -> jax.Array:
        jax.debug.print("{}", x)
        return x + 1

    assert "calls the host" in checked(jax.jit(talkative), jax.ShapeDtypeStruct((4,), jnp.float32))


def test_convolutions_of_another_dtype_and_want_of_memory_are_seen() -> None:
    """A convolution in float32 where bfloat16 was asked for; an array larger than the device."""

    @jax.jit
    def convolved(x: jax.Array) -> jax.Array:
        return jax.lax.conv(x, jnp.ones((1, 1, 3, 3), x.dtype), (1, 1), "SAME")

    assert "convolutions are in ['f32']" in checked(convolved, jax.ShapeDtypeStruct((2, 1, 8, 8), jnp.float32))
    small = check.Target("cpu", "", 1e-9)
    assert "GiB" in checked(convolved, jax.ShapeDtypeStruct((2, 1, 8, 8), jnp.bfloat16), target=small)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "changes"),
    [
        ("fashion", {"policy": "ind/ic", "optimizer": "shampoo"}),
        ("fashion", {"policy": "labels", "optimizer": "schedule_free", "schedule": "constant"}),
        ("flowers", {"policy": "fix/cc"}),
        ("flowers", {"policy": "mix", "teacher": "fashion@12"}),
    ],
)
def test_all_programs_of_a_step_can_be_lowered(dataset: str, changes: dict[str, Any]) -> None:
    """With Shampoo or averaged weights, another size for the teacher, crops or images on the device."""
    small = {"student": "bit_r11w8", "teacher": "fashion", "resolution": 8, "batch_size": 4, "dtype": "bfloat16"}
    recipe = recipes.get(dataset, "quick" if dataset == "fashion" else "fast", **(small | changes))
    for lower, limit, macs, _ in programs.lowered(recipe, sharding.data_mesh()).values():
        assert "stablehlo" in lower().as_text() and limit > 0 and macs >= 0


def test_a_compiler_that_dies_is_told_with_the_program_it_was_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What both cases made before stays, and the reason is XLA's failed check rather than the end of its stack."""
    python = tmp_path / "python"
    row = '{"case": "c", "program": "first", "dtype": "d", "problems": ""}'
    failed = "F0000 tiling.cc:627] Check failed: size == 3"
    lines = ("#!/bin/sh", f"echo '{row}'", f"echo '{failed}' >&2", "echo '    @ 0x7f main' >&2", "exit 134")
    python.write_text("\n".join(lines))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    with pytest.raises(DistillError, match="not as they should be") as raised:
        compiling.measure(str(python), "quick", ["H100 x 8"])
    assert f"student: it does not compile ({failed})" in str(raised.value)
    assert "first: as it should be" in capsys.readouterr().out
    content = benchmarks.read("compile")
    assert content is not None and [row["program"] for row in content["rows"]] == ["first", "first"]


def test_a_size_that_there_is_not_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With those that there are; nothing is compiled."""
    assert compiling.main(["huge", "--python", "python"]) == 1
    said = capsys.readouterr().err
    assert "invalid choice: 'huge'" in said and "'quick', 'usual', 'full'" in said and said.count("\n") == 1
