"""Teachers that are Python functions: shown what any teacher is shown, and told in one line where they fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny

from distill_lib import teachers, train
from distill_lib.errors import DistillError
from distill_lib.teachers import soft_labels
from distill_lib.train import record_soft_labels

LOADING = {"num_classes": 10, "channels": 1, "resolution": tiny.SIDE}
SOURCE = """
import numpy as np
seen = []
def logits(images):
    assert isinstance(images, np.ndarray) and images.dtype == np.float32
    seen.append(images)
    return images.reshape(len(images), -1)[:, :10] * 3
def fails(images):
    if len(images) > 2:
        raise RuntimeError("out of\\nmemory")
    return logits(images)
def narrow(images):
    return images.mean((1, 2))
def mean(images):
    return np.repeat(images.mean((1, 2)), 10, 1)
def endless(images):
    return np.full((len(images), 10), np.inf)
def wrong(images):
    return images.no_such_thing
number = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module `mine` in the working folder, and one device."""
    monkeypatch.setattr("jax.device_count", lambda: 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(SOURCE)
    yield tmp_path / "mine.py"
    sys.modules.pop("mine", None)


def test_a_function_is_shown_images_and_gives_logits(module: Path) -> None:
    """In the student's size or in one that is chosen; and it is part of an ensemble as any other."""
    images = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
    teacher = teachers.load("mine:logits", **LOADING)
    np.testing.assert_array_equal(teacher.logits(images), images.reshape(3, -1)[:, :10] * 3)
    assert teachers.load("mine:logits@12", **LOADING).logits(images).shape == (3, 10)
    assert sys.modules["mine"].seen[-1].shape == (3, 12, 12, 1)
    both = teachers.load("mine:logits + mine:mean", **LOADING).logits(images)
    mean = teachers.load("mine:mean", **LOADING).logits(images)
    np.testing.assert_allclose(both, (teacher.logits(images) + mean) / 2, atol=1e-4)


def test_a_function_is_known_by_its_source_and_its_version(module: Path) -> None:
    """Soft labels of one that has changed are not those of another."""
    digests = [teachers.load("mine:logits", **LOADING).sha256]
    sys.modules["mine"].logits.version = "other weights"
    digests.append(teachers.load("mine:logits", **LOADING).sha256)
    del sys.modules["mine"]
    module.write_text(SOURCE + "\nx = 1\n")
    digests.append(teachers.load("mine:logits", **LOADING).sha256)
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yours:logits", r"teacher yours:logits cannot be imported \(ModuleNotFoundError: No module named 'yours'\)"),
        ("mine:logit", r"cannot be imported \(AttributeError: .*'logit'.*\); name MODULE:FUNCTION"),
        ("mine:number", "is no function but int"),
        ("mine:narrow", r"is to give 10 finite logits for each of 2 images, and gave an array of shape \(2, 1\)"),
        ("mine:endless", r"of shape \(2, 10\), not all finite"),
        ("mine:wrong", "teacher mine:wrong failed: AttributeError: .*no_such_thing"),
        ("my mine:logits", "unknown teacher"),
    ],
)
def test_what_is_no_teacher_is_told_before_anything_is_computed(name: str, message: str) -> None:
    with pytest.raises(DistillError, match=message) as caught:
        teachers.load(name, **LOADING)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("tiny_models")
def test_a_function_is_shown_the_very_views_that_students_learn_from(module: Path, tmp_path: Path) -> None:
    """Soft labels are stored without a student, replayed, and the run is judged by the function, too."""
    recipe = tiny.recipe("mine:logits", epochs=1, policy="mix", evaluations=1, warmup_steps=1)
    store = record_soft_labels.store(recipe, tmp_path / "labels", 10)
    shown = sys.modules["mine"].seen[-4:]
    for step, images in enumerate(shown):
        soft = np.asarray(store.read(step).logits, np.float32)
        expected = images.reshape(16, -1)[:, :10] * 3
        np.testing.assert_allclose(soft, expected - expected.max(-1, keepdims=True), atol=1e-2)
    store.check(0, shown[0])
    asked = len(sys.modules["mine"].seen)
    run = train.fit(recipe, tmp_path / "results", replay=store.folder)
    assert run.record["teacher"]["name"] == "mine:logits" and "test_kl" in run.record["result"]
    assert "test_cka" not in run.record["result"], "its features are not known"
    assert all(len(images) != 16 for images in sys.modules["mine"].seen[asked:]), "no batch of a step"


@pytest.mark.usefixtures("tiny_models")
def test_a_function_that_fails_on_the_way_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In two lines: what it said, and that nothing more is stored; never as a traceback out of a program."""
    recipe = tiny.recipe("mine:fails", epochs=1, policy="mix", warmup_steps=1)
    with pytest.raises(DistillError, match="logits from step 0 on are not finite: mend the teacher"):
        record_soft_labels.store(recipe, tmp_path / "labels", 10)
    said = "".join(capfd.readouterr())
    assert said.count("teacher mine:fails failed: RuntimeError: out of memory; mend it.") == 1
    assert "Traceback" not in said and soft_labels.load(tmp_path / "labels").steps == 0


def test_a_teacher_of_several_cpu_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA would wait for itself for ever."""
    monkeypatch.setattr("jax.device_count", lambda: 2)
    with pytest.raises(DistillError, match="which several CPU devices cannot ask"):
        teachers.load("mine:logits", **LOADING)
