"""What a user is told: errors that can be mended, in one clear line that says what to do, and messages of long work."""

import argparse
import difflib
import errno
import functools
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, TextIO

logger = logging.getLogger("distill_lib")  # an ordinary one: a program may set its level, or put handlers of its own


class DistillError(Exception):
    """A problem with a name, a file or a setting that the user can mend; its message is one line."""


class Parser(argparse.ArgumentParser):
    """Reads a command line; what is wrong is a `DistillError`, where argparse prints lines and ends the process."""

    def error(self, message: str) -> NoReturn:
        """Raises the error, with how the command is used."""
        raise DistillError(f"{message}. {' '.join(self.format_usage().split())}")


def command_line(main: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """Makes a command of a function of arguments, or the process's: 1 after an error, 130 where the user stops it."""

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments) or 0
        except (DistillError, OSError) as error:
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            print(f"error: {error}{'; make room there.' if full else ''}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("error: interrupted; the same command goes on where it stopped, or starts again.", file=sys.stderr)
            return 130

    return run


def unknown(kind: str, name: object, known: Iterable[str]) -> DistillError:
    """Builds the error for an unknown name of some kind ("dataset"), with the known ones and the closest of them."""
    choices = list(known)
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return DistillError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(choices) or 'none'}.")


def aligned(lines: Iterable[Sequence[str]]) -> str:
    """Lines of equally many cells as text in columns."""
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


class _Plain(logging.StreamHandler[TextIO]):
    """Prints the message alone, warnings to standard error; notebooks exchange the streams."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints in one piece, so that threads do not mix their lines."""
        self.stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        super().emit(record)


if not logger.handlers:
    logger.addHandler(_Plain())
    logger.setLevel(logging.INFO)
    logger.propagate = False
