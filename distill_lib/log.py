"""Messages of long work: what is as expected on standard output, warnings on standard error.

`logging.getLogger("distill_lib")` is an ordinary logger: a program may set its level, or put handlers of its own.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

logger = logging.getLogger("distill_lib")


class _Plain(logging.StreamHandler[TextIO]):
    """Prints the message alone, to the stream that is the standard one at the time: notebooks exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints in one piece, so that threads do not mix their lines."""
        self.stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        super().emit(record)


if not logger.handlers:
    logger.addHandler(_Plain())
    logger.setLevel(logging.INFO)
    logger.propagate = False
