"""The package works where it is installed, outside of its repository: data files come along, results are looked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE = """
from pathlib import Path
import distill_lib
from distill_lib import datasets, recipes, records, teachers, views
assert Path(distill_lib.__file__).is_relative_to(Path.cwd().parent / "site"), distill_lib.__file__
teacher = teachers.load("fashion", num_classes=10, channels=1, resolution=28)
assert datasets.arrays("fashion", "test").images.shape == (10_000, 28, 28, 1)
assert recipes.get("flowers", "fast").policy == "mix" and (Path(distill_lib.__file__).parent / "py.typed").is_file()
assert records.read().empty and records.find_results() == Path("results")
"""


@pytest.mark.slow
def test_an_installed_wheel_holds_all_that_it_needs(tmp_path: Path) -> None:
    """Built from a copy of the sources and unpacked: images and teachers are in it, and no tests."""
    source, site, elsewhere = tmp_path / "source", tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(ROOT / "distill_lib", source / "distill_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    assert not [name for name in names if not name.startswith("distill_lib")]
    variables = {name: value for name, value in os.environ.items() if name != "DISTILL_RESULTS"}
    command = [sys.executable, "-c", USE]
    variables |= {"PYTHONPATH": str(site)}
    subprocess.run(command, cwd=elsewhere, env=variables, check=True)
    bench = [sys.executable, "-m", "distill_lib", "bench", "sweep"]
    refused = subprocess.run(bench, cwd=elsewhere, env=variables, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.startswith("error: benchmarks are in this project's repository")
