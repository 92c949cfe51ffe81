"""What the library imports is what pyproject.toml declares."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import distill_lib

LIBRARY = Path(distill_lib.__file__).parent
PROJECT = tomllib.loads((LIBRARY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_ANOTHER = {"importlib-resources"}  # tensorflow-datasets imports it and does not say so


def normalized(requirement: str) -> str:
    """The name in a requirement, as package indices compare it."""
    name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """Distributions of all modules that the library imports; benchmarks are none, and in its repository alone."""
    modules: set[str] = set()
    for path in LIBRARY.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add((node.module or "").partition(".")[0])
    distributions = importlib.metadata.packages_distributions()
    others = modules - {*sys.stdlib_module_names, "distill_lib", "benchmarks"}
    return {normalized(name) for module in others for name in distributions.get(module, [module])}


def test_what_is_imported_is_declared() -> None:
    """By the library itself, or by the extra that the importing code asks for."""
    extras = PROJECT["optional-dependencies"]
    used = ("book", "bench", "export", "onnx", "sweep", "mirror", "tensorboard")
    parts = (PROJECT["dependencies"], *(extras[name] for name in used))
    declared = {normalized(name) for part in parts for name in part}
    assert imported() - declared == set()


def test_what_is_declared_is_imported() -> None:
    """A user installs nothing that is not used."""
    assert {normalized(name) for name in PROJECT["dependencies"]} - imported() == OF_ANOTHER


def test_what_is_declared_is_pinned() -> None:
    """For the environment of nox, which goes without the converter to ONNX and the many packages that it brings."""
    text = (LIBRARY.parent / "requirements.txt").read_text(encoding="utf-8")
    pinned = {normalized(line) for line in text.splitlines() if line and not line.startswith("#")}
    extras = [part for name, part in PROJECT["optional-dependencies"].items() if name != "onnx"]
    declared = {normalized(name) for name in (*PROJECT["dependencies"], *(name for part in extras for name in part))}
    assert declared - {"distill-lib"} == pinned
