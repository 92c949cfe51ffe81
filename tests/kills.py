"""Runs that end before they are finished; not a test itself."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from unittest import mock

import pytest

from distill_lib.train import checkpoint


@contextlib.contextmanager
def killed_after(saves: int) -> Iterator[None]:
    """Ends what trains inside where it would write a checkpoint after so many, of all its students."""
    save, begun = checkpoint.save, itertools.count()

    def saving(*about: object) -> None:
        if next(begun) == saves:
            raise KeyboardInterrupt
        save(*about)

    with mock.patch.object(checkpoint, "save", saving), pytest.raises(KeyboardInterrupt):
        yield
