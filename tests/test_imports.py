"""Imports: light, and one way only."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import distill_lib

LIBRARY = Path(distill_lib.__file__).parent
HEAVY = ("jax", "flax", "optax", "tensorflow_datasets", "tensorflow", "matplotlib", "pandas", "papermill")
FLAT = (*("errors", "lazy", "values", "sharding", "crops", "weights", "losses", "shampoo", "soap", "optim", "views"),)
MAY_IMPORT = {  # in the order of the flow, beside what is flat and comes before all of them
    "models": set(),
    "datasets": set(),
    "teachers": {"models"},
    "recipes": {"models", "datasets", "teachers"},
    "records": {"recipes"},
    "input_pipeline": {"datasets", "recipes"},
    "evaluation": {"models", "datasets", "teachers", "recipes", "records", "input_pipeline"},
    "train": {"models", "datasets", "teachers", "recipes", "records", "input_pipeline", "evaluation"},
    "export": {"models", "datasets", "teachers", "records"},
    "experiments": {"models", "datasets", "teachers", "recipes", "records", "input_pipeline", "evaluation", "train"},
    "report": {"models", "datasets", "teachers", "recipes", "records", "input_pipeline", "experiments"},
    "figures": {"models", "datasets", "teachers", "recipes", "records", "report"},
    "cli": {
        *("datasets", "teachers", "recipes", "records", "evaluation", "train"),
        *("export", "experiments", "report", "figures"),
    },
    "__main__": {"cli"},
}


def loaded_by(module: str) -> set[str]:
    """Top-level names that importing a module loads, in a process of its own."""
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    names = json.loads(found.stdout)
    return {name.partition(".")[0] for name in names} | {name for name in names if name.startswith("distill_lib.")}


def imported_by(path: Path) -> set[str]:
    """Packages and flat modules of this library that a file imports, anywhere in it, for a type checker too."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "distill_lib":
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distill_lib."):
            modules.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            modules |= {name.name.split(".")[1] for name in node.names if name.name.startswith("distill_lib.")}
    return modules


def files_of(room: str) -> list[Path]:
    """The files of a package, or the one of a flat module."""
    return sorted((LIBRARY / room).rglob("*.py")) or [LIBRARY / f"{room}.py"]


def test_the_command_line_is_light() -> None:
    """`distill --help` is there at once: a command loads what it needs when it runs."""
    own = {"distill_lib", "distill_lib.cli", "distill_lib.errors"}
    loaded = loaded_by("distill_lib.cli")
    assert {name for name in loaded if name.startswith("distill_lib")} == own
    assert not loaded & {*HEAVY, "numpy", "yaml"}


def test_the_package_itself_is_light() -> None:
    """`import distill_lib` costs nothing: no array library, no plots, no tables."""
    assert not loaded_by("distill_lib") & set(HEAVY)


def test_modules_load_what_is_heavy_only_when_it_is_used() -> None:
    """Data sets, tables and figures are loaded by the functions that need them."""
    names = ("recipes.presets", "records", "weights", "datasets.source", "datasets.prepare")
    loaded = loaded_by(", ".join(f"distill_lib.{name}" for name in names))
    assert not loaded & {"tensorflow_datasets", "tensorflow", "matplotlib", "pandas", "papermill"}
    assert not loaded_by("distill_lib.figures.runs") & {"tensorflow_datasets", "tensorflow", "papermill"}


def test_what_a_step_needs_loads_no_data_and_no_figures() -> None:
    """Views, losses, models and optimiser can be used alone, as a lecturer does."""
    modules = "distill_lib.views, distill_lib.losses, distill_lib.models.bit, distill_lib.optim, distill_lib.train.step"
    loaded = loaded_by(modules)
    assert not loaded & {"tensorflow_datasets", "tensorflow", "matplotlib", "pandas", "papermill"}
    unneeded = ("datasets", "train.loop", "records", "recipes", "teachers.teacher", "input_pipeline")
    assert not loaded & {f"distill_lib.{name}" for name in unneeded}


@pytest.mark.parametrize("package", ["recipes", "teachers", "train", "experiments", "figures"])
def test_names_that_are_loaded_late_can_be_completed(package: str) -> None:
    module = importlib.import_module(f"distill_lib.{package}")
    assert set(module.__all__) <= set(dir(module))


def test_tensorflow_is_never_loaded() -> None:
    """Images are read without it; it need not be installed."""
    sources = [path.read_text(encoding="utf-8") for path in LIBRARY.rglob("*.py")]
    imports = [
        alias.name
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    assert "tensorflow_datasets" in imports and "tensorflow" not in imports


def test_every_file_has_a_place_in_the_order() -> None:
    """A new package or flat module says here what it may import, which keeps the library free of circles."""
    rooms = {path.relative_to(LIBRARY).parts[0].removesuffix(".py") for path in LIBRARY.rglob("*.py")} - {"__init__"}
    assert rooms == {*FLAT, *MAY_IMPORT}
    order = list(MAY_IMPORT)
    assert all(order.index(other) < order.index(room) for room in order for other in MAY_IMPORT[room])


@pytest.mark.parametrize("room", [*FLAT, *MAY_IMPORT])
def test_data_flow_one_way(room: str) -> None:
    """A package imports only what stands before it: models, views and losses know neither data nor training."""
    allowed = {*FLAT[: FLAT.index(room)]} if room in FLAT else {*FLAT, *MAY_IMPORT[room], room}
    assert {path.name: imported_by(path) - allowed for path in files_of(room) if imported_by(path) - allowed} == {}


def test_the_command_alone_knows_the_benchmarks() -> None:
    """They are no part of the package: what imports them does not work where it is installed."""
    users = [path.name for path in LIBRARY.rglob("*.py") if "from benchmarks" in path.read_text(encoding="utf-8")]
    assert users == ["cli.py"]


def test_only_training_and_experiments_import_training() -> None:
    """A chapter, a figure or a model that pulled in the training loop would make the book depend on it.

    The command line, on top of all, starts what stores a teacher's answers; `experiments.run` trains for notebooks.
    """
    users = {path.relative_to(LIBRARY).parts[0] for path in LIBRARY.rglob("*.py") if "train" in imported_by(path)}
    assert users == {"train", "experiments", "cli.py"}
