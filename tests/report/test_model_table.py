"""The table of models says what the code says."""

from __future__ import annotations

from pathlib import Path

from distill_lib.report import model_table


def test_sizes_costs_and_differences_of_the_table() -> None:
    """Published sizes; multiply-accumulates of the student; the difference is the record's."""
    shown = [("bit_r50x1", 224, 3, 1000), ("mobilenet_v3_large_bn", 224, 3, 1000), ("bit_r11w8", 28, 1, 10)]
    table = model_table.table(shown).set_index("model")
    assert list(table["parameters (M)"]) == ["25.55", "5.48", "0.03"]
    assert list(table["GMAC"]) == ["4.09", "0.22", "0.001"]
    assert 0 < float(table["difference from timm"]["bit_r50x1"]) < 1e-3


def test_without_the_record_nothing_is_claimed(tmp_path: Path) -> None:
    """No difference where none was measured."""
    (row,) = model_table.table([("bit_r11w8", 28, 1, 10)], tmp_path).to_dict("records")
    assert row["difference from timm"] == ""
