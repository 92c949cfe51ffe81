"""Public names of packages, each loaded when it is asked for: who needs a step alone loads no data and no records."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def loader(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a package from its modules, each with its public names."""
    homes = {name: module for module, names in modules.items() for name in names}
    vars(sys.modules[package])["__dir__"] = lambda: sorted(homes)  # which notebooks complete

    def look_up(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return look_up
