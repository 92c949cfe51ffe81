"""Imports: light, and one way only."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import distill_lib

LIBRARY = Path(distill_lib.__file__).parent
HEAVY = ("jax", "flax", "optax", "orbax", "tensorflow_datasets", "tensorflow", "matplotlib", "pandas", "papermill")


def loaded_by(module: str) -> set[str]:
    """Top-level names that importing a module loads, in a process of its own."""
    script = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    names = json.loads(found.stdout)
    return {name.partition(".")[0] for name in names} | {name for name in names if name.startswith("distill_lib.")}


def imported_by(path: Path) -> set[str]:
    """Modules of this library that a file imports, anywhere in it but for the eyes of a type checker."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "distill_lib":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distill_lib."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("distill_lib.")}
    return found


def test_the_package_itself_is_light() -> None:
    """`import distill_lib` costs nothing: no array library, no plots, no tables."""
    assert not loaded_by("distill_lib") & set(HEAVY)


@pytest.mark.parametrize("module", ["recipes", "records", "checkpoints", "datasets", "plots"])
def test_modules_load_what_is_heavy_only_when_it_is_used(module: str) -> None:
    """Data sets, tables and figures are loaded by the functions that need them."""
    unneeded = {"tensorflow_datasets", "tensorflow", "matplotlib", "pandas", "papermill", "orbax"}
    if module == "plots":
        unneeded -= {"matplotlib", "pandas"}
    assert not loaded_by(f"distill_lib.{module}") & unneeded


def test_what_a_step_needs_loads_no_data_and_no_figures() -> None:
    """Views, losses, models and optimiser can be used alone, as a lecturer does."""
    modules = "distill_lib.views, distill_lib.losses, distill_lib.models.bit, distill_lib.optim, distill_lib.step"
    loaded = loaded_by(modules)
    assert not loaded & {"tensorflow_datasets", "tensorflow", "matplotlib", "pandas", "papermill", "orbax"}
    assert not loaded & {f"distill_lib.{name}" for name in ("datasets", "train", "records", "teachers", "loader")}


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


ALLOWED = {
    "errors": set(),
    "losses": set(),
    "shampoo": set(),
    "optim": {"errors", "shampoo"},
    "progress": set(),
    "boxes": set(),
    "views": {"boxes", "errors"},
    "loader": {"errors"},
    "checkpoints": {"errors"},
    "resume": {"errors"},
    "models/__init__": {"errors", "models"},
    "models/group_norm": set(),
    "models/conv_norm": {"models"},
    "models/bit": {"models"},
    "models/mobilenet_v3": {"models"},
    "models/efficientnet_lite": {"models"},
    "models/vit": {"errors", "models"},
    "models/cost": {"errors", "models"},
    "models/ensemble": {"errors", "models"},
    "naming": {"errors"},
    "download": {"errors", "checkpoints"},
    "published": {"errors", "checkpoints", "download", "models", "naming"},
    "paper_presets": {"cards"},
    "hyper_rule": {"cards", "paper_presets"},
    "folder_presets": {"paper_presets"},
    "presets": {"errors", "folder_presets", "folders", "hyper_rule", "paper_presets"},
    "recipe_checks": {"cards", "errors", "models", "presets", "published", "teachers", "views"},
    "recipes": {
        "errors",
        "folders",
        "losses",
        "models",
        "optim",
        "presets",
        "recipe_checks",
        "recipe_table",
        "views",
    },
    "matching": {"recipes"},
    "paper": set(),
    "report": {"budget", "datasets", "findings", "matching", "paper", "presets", "recipe_table", "recipes"},
    "budget": {"cost_estimate", "datasets", "devices", "errors", "presets", "recipes", "views"},
    "answers": set(),
    "archive": {"answers", "checkpoints", "errors"},
    "allocator": set(),
    "step": {"allocator", "answers", "models", "views"},
    "learning": {"losses", "models", "optim", "shampoo", "step"},
    "multilabel": set(),
    "cka": set(),
    "sharding": set(),
    "evaluate": {"errors", "losses", "models", "multilabel", "sharding", "views"},
    "fidelity": {"boxes", "decode", "host_views", "photographs", "readers"},
    "judge": {"cka", "datasets", "errors", "evaluate", "exams", "multilabel", "presets", "records", "teachers"},
    "teachers": {"errors", "checkpoints", "models", "published", "sharding", "views"},
    "records": {"errors", "checkpoints"},
    "lite0": {"errors", "checkpoints", "models"},
    "photographs": {"errors", "views"},
    "borrowed": {"errors", "photographs"},
    "model_table": {"errors", "models", "published", "records"},
    "jpeg": set(),
    "decode": {"jpeg"},
    "host_views": {"boxes", "errors"},
    "chunks": {"decode", "errors", "host_views", "loader"},
    "stream": {"boxes", "chunks", "errors", "host_views", "loader", "views"},
    "exams": {"datasets", "decode", "evaluate", "models", "views"},
    "task": {
        "answers",
        "archive",
        "datasets",
        "exams",
        "fixed",
        "learning",
        "models",
        "recipes",
        "step",
        "stream",
        "teachers",
        "views",
    },
    "assembly": {
        "archive",
        "checkpoints",
        "datasets",
        "errors",
        "exams",
        "fixed",
        "models",
        "published",
        "recipes",
        "records",
        "stream",
        "task",
        "teachers",
        "views",
    },
    "fixed": {"boxes", "chunks", "decode", "models", "sharding", "teachers", "views"},
    "lessons": {"fixed", "loader", "sharding", "step", "stream", "task", "views"},
    "store": {
        "answers",
        "archive",
        "assembly",
        "errors",
        "lessons",
        "notebooks",
        "progress",
        "recipes",
        "sharding",
        "step",
        "task",
    },
    "pupil": {"cka", "errors", "checkpoints", "evaluate", "exams", "learning", "optim", "records", "resume", "task"},
    "train": {
        "assembly",
        "errors",
        "learning",
        "lessons",
        "progress",
        "pupil",
        "recipes",
        "records",
        "resume",
        "sharding",
        "step",
        "task",
    },
    "classroom": {"assembly", "errors", "learning", "pupil", "recipes", "step", "task", "train"},
}


@pytest.mark.parametrize("module", ALLOWED)
def test_data_flow_one_way(module: str) -> None:
    """A module imports only what stands before it: models, views and losses know neither data nor training."""
    assert imported_by(LIBRARY / f"{module}.py") <= ALLOWED[module]


def test_only_training_imports_training() -> None:
    """A chapter, a figure or a model that pulled in the training loop would make the book depend on it."""
    users = {path.stem for path in LIBRARY.rglob("*.py") if "train" in imported_by(path)}
    assert users == {"classroom", "loop"}  # bench/loop.py times it
