"""Strict settings for every test, and for the processes and notebook kernels that tests start.

Two CPU devices, so that code which shards by accident or forgets to shard is seen; rank promotion raises, so that no
array broadcasts in silence; warnings are errors (pyproject.toml). Programs are compiled quickly rather than well, since
most run for less than a second, and kept between runs of the tests, for each process of pytest-xdist in a folder of its
own: jax may read what another process has half written. What any of them wrote in earlier runs lies in all.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("steady", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.register_profile("long", deadline=None, max_examples=20_000)  # pytest --hypothesis-profile long
hypothesis.settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    """Sets the environment, which jax reads when it is imported, here and in child processes."""
    flags, worker = os.environ.get("XLA_FLAGS", ""), os.environ.get("PYTEST_XDIST_WORKER", "alone")
    if config.cache and worker == "alone":
        share([config.cache.mkdir(f"jax_{name}") for name in ("alone", *(f"gw{number}" for number in range(4)))])
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=2".strip(),
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(config.cache.mkdir(f"jax_{worker}")) if config.cache else "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "MPLBACKEND": "",
    }
    os.environ.pop("DISTILL_RESULTS", None)
    import matplotlib

    matplotlib.use("agg")


def share(folders: list[Path]) -> None:
    """Links every file of any folder into all others, unless another run of the tests is doing so."""
    files = {path.name: path for folder in folders for path in folder.iterdir()}
    for folder in folders:
        for name in files.keys() - {path.name for path in folder.iterdir()}:
            with contextlib.suppress(FileExistsError):
                os.link(files[name], folder / name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files with the most slow tests first, so that no process ends alone with one of them."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def programs_of_children(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the processes that a test starts keep their compiled programs in a folder of the test's file."""
    cache = request.config.cache
    folder = cache.mkdir(f"jax_{request.path.stem}") if cache else tmp_path / "programs"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))


@pytest.fixture(scope="module")
def tiny_models() -> Iterator[None]:
    """Makes the tiny network known."""
    import tiny

    before = dict(tiny.bit.SMALL_STAGES)
    tiny.register()
    yield
    tiny.bit.SMALL_STAGES.clear()
    tiny.bit.SMALL_STAGES.update(before)


@pytest.fixture(scope="module")
def teacher(tiny_models: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny teacher with random weights."""
    import tiny

    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.npz")
