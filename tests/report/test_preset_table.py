"""The presets as a table: every preset once, its settings to compare with the paper, and its notes."""

from __future__ import annotations

import pytest

from distill_lib import cli, recipes
from distill_lib.recipes import presets
from distill_lib.report import paper_numbers


def test_every_preset_is_in_a_row_with_steps_costs_and_source() -> None:
    """Those with the same settings share one; a setting that is not the set's usual one is named."""
    table = paper_numbers.table("flowers").to_dict("records")
    rows = {name: row for row in table for name in row["preset"].split(", ")}
    assert sorted(rows) == sorted(recipes.variants("flowers")[:-1]) and rows["long"] is rows["mix_1000000"]
    assert all(row["steps"] and row["student PFLOP"] and row["hours"] and row["source"] for row in rows.values())
    words = "function matching for 1,000,000 epochs; temperature 1, learning rate 0.0003, weight decay 1e-05"
    assert rows["long"]["what it is"] == words
    assert rows["transfer_10000"]["teacher PFLOP"] == "0"
    assert rows["transfer_10000"]["what it is"].endswith(", start BiT-M-R50x1")
    assert "temperature" not in rows["transfer_10000"]["what it is"]
    assert rows["long"]["notes"][0].startswith("The teacher is not reached")


def test_conflicts_between_paper_and_code_are_noted() -> None:
    """Those that a reproduction has to decide, each where its preset is printed."""
    told = {
        ("sun397", "medium"): "released configuration has .001",
        ("imagenet", "t384_mix_300"): "84.3",
        ("imagenet", "ensemble_mix_1200"): "sums the KLs",
        ("imagenet", "shampoo_mix_1200"): "81.67 after 1,200",
        ("imagenet", "mix_30"): "5,000 warm-up steps of 9,196",
        ("flowers", "mix_1000"): "1,500 warm-up steps of 1,992",
        ("pets", "mix_300"): "1,500 warm-up steps of 1,941",
        ("imagenet", "s160_mix_4800"): "failed",
    }
    for (dataset, variant), words in told.items():
        assert any(words in note for note in presets.describe(dataset, variant).notes), (dataset, variant)
    assert any("last 2 %" in note for note in paper_numbers.shared("imagenet"))
    for dataset, variant in (("imagenet", "mix_30"), ("flowers", "mix_1000"), ("pets", "mix_300")):
        steps = recipes.get(dataset, variant).steps({"imagenet": 1_255_544, "flowers": 1_020, "pets": 3_312}[dataset])
        assert any(f" of {steps:,} in all" in note for note in presets.describe(dataset, variant).notes)


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture) -> None:
    """With hours of a named device."""
    assert cli.main(["presets", "fashion", "--device", "A100"]) == 0
    found = capsys.readouterr().out
    assert "longest" in found and "Where a row says nothing else: student bit_r11w8" in found
    assert "312 TFLOP/s in bfloat16 and 156 in float32" in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flowrs"], "unknown dataset 'flowrs'. Did you mean 'flowers'?"),
        (["fashion", "--device", "H1000"], "unknown device 'H1000'."),
    ],
)
def test_bad_names_are_one_line_and_exit_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["presets", *arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and message in err and err.count("\n") == 1 and not out
