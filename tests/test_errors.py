"""Errors that a user can mend say what to do in one line, and commands end with them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distill_lib.errors import DistillError, command_line, unknown


def test_an_unknown_name_suggests_the_closest_and_lists_all() -> None:
    message = str(unknown("dataset", "flower", ["fashion", "flowers"]))
    assert message == "unknown dataset 'flower'. Did you mean 'flowers'? Valid: fashion, flowers."


def test_a_name_that_is_close_to_nothing_gets_no_suggestion() -> None:
    assert str(unknown("split", 3, ("train",))) == "unknown split 3. Valid: train."
    assert str(unknown("study", "quick", [])) == "unknown study 'quick'. Valid: none."


@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (None, 0, ""),
        (DistillError("no data; get them."), 1, "error: no data; get them.\n"),
        (FileNotFoundError(2, "No such file", "a.npz"), 1, "error: [Errno 2] No such file: 'a.npz'\n"),
        (OSError(28, "No space left", "a.npz"), 1, "error: [Errno 28] No space left: 'a.npz'; make room there.\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; the same command goes on where it stopped, or starts again.\n"),
    ],
)
def test_a_command_tells_what_stopped_it_in_one_line(
    stop: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never a traceback for what a user can mend, and an exit code that scripts can rely on."""

    @command_line
    def main(arguments: Sequence[str] | None = None) -> None:
        assert arguments == ["a"]
        if stop is not None:
            raise stop

    assert main(["a"]) == code and capsys.readouterr().err == said
