"""Errors that a user can mend say what to do in one line."""

from __future__ import annotations

from distill_lib.errors import unknown


def test_an_unknown_name_suggests_the_closest_and_lists_all() -> None:
    message = str(unknown("dataset", "flower", ["fashion", "flowers"]))
    assert message == "unknown dataset 'flower'. Did you mean 'flowers'? Valid: fashion, flowers."


def test_a_name_that_is_close_to_nothing_gets_no_suggestion() -> None:
    assert str(unknown("split", 3, ("train",))) == "unknown split 3. Valid: train."
    assert str(unknown("study", "quick", [])) == "unknown study 'quick'. Valid: none."
