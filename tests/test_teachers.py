"""Teachers: loaded with care, and fixed outputs are the mean of what the teacher says."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from distill_lib import checkpoints, recipes, teachers, views
from distill_lib.errors import DistillError
from distill_lib.teachers import Teacher

MODEL = "bit_r11w8"


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """A linear teacher of 8 x 8 grey images; every pixel counts by its place."""
    model, params = tiny.linear(5, 64)
    return Teacher("linear", model, params, "no file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of a small BiT for ten classes of grey images."""
    path = tmp_path / "teacher.npz"
    checkpoints.save_npz(path, tiny.random_params(MODEL, 10), {"model": MODEL})
    return path


def softmax(logits: np.ndarray) -> np.ndarray:
    """The plain formula, float64."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def pictures(count: int) -> np.ndarray:
    """Noise, 10 x 10 pixels."""
    return np.random.default_rng(0).integers(0, 256, (count, 10, 10, 1), np.uint8)


def said(teacher: Teacher, shown: np.ndarray, temperature: float) -> np.ndarray:
    """The teacher's tempered prediction for images in [-1, 1], in NumPy."""
    return softmax(shown.reshape(len(shown), -1) @ teacher.params["kernel"] / temperature)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_fixed_teacher_says_what_it_says_of_the_central_crop(teacher: Teacher, temperature: float) -> None:
    """`fix/cc`: the 8 x 8 pixels in the middle of 10 x 10, also beyond the first chunk of images."""
    images = pictures(515)
    found = teachers.fixed_logits(
        teacher, images, views.policy("fix/cc"), resolution=8, area=(0.05, 1), crops=9, temperature=temperature
    )
    assert found.shape == (515, 5) and found.dtype == np.float32
    expected = said(teacher, images[:, 1:9, 1:9] / 127.5 - 1, temperature)
    np.testing.assert_allclose(softmax(found / temperature), expected, atol=1e-5)


def test_a_fixed_teacher_says_what_it_says_of_the_whole_image(teacher: Teacher) -> None:
    """`fix/rs`: the image resized."""
    images = pictures(3)
    options = {"resolution": 8, "area": (0.05, 1), "crops": 9, "temperature": 2.0}
    found = teachers.fixed_logits(teacher, images, views.policy("fix/rs"), **options)
    expected = said(teacher, np.asarray(views.render(jnp.asarray(images), views.still(3), 8)), 2.0)
    np.testing.assert_allclose(softmax(found / 2), expected, atol=1e-5)


def test_an_ensemble_over_crops_is_the_mean_of_its_predictions(teacher: Teacher) -> None:
    """`fix/ic_ens`: predictions at the temperature are averaged, not logits; crops are not mirrored."""
    images, temperature, area = pictures(6), 3.0, (0.3, 0.9)
    options = {"resolution": 8, "area": area, "temperature": temperature}
    found = teachers.fixed_logits(teacher, images, views.policy("fix/ic_ens"), crops=4, **options)
    key, total = jax.random.key(0), np.zeros((6, 5))
    sample = jax.jit(lambda key: views.sample(key, 6, area=area, flip=False))
    boxes = []
    for crop in range(4):
        view = sample(jax.random.fold_in(key, crop))
        assert not view.flip.any()
        boxes.append(np.asarray(view.box))
        total += said(teacher, np.asarray(views.render(jnp.asarray(images), view, 8)), temperature)
    assert len(np.unique(np.concatenate(boxes), axis=0)) == 24
    np.testing.assert_allclose(softmax(found / temperature), total / 4, atol=1e-5)


def test_an_ensemble_converges_to_the_expectation(teacher: Teacher) -> None:
    """Fixed outputs repeat, and other numbers of crops give other, neighbouring means."""
    options = {"resolution": 8, "area": (0.3, 0.9), "temperature": 3.0}
    images, policy = pictures(6), views.policy("fix/ic_ens")
    few, again, many, more = (
        softmax(teachers.fixed_logits(teacher, images, policy, crops=crops, **options) / 3)
        for crops in (2, 2, 100, 200)
    )
    np.testing.assert_array_equal(few, again)
    assert np.abs(many - more).max() < np.abs(few - more).max() / 2


def test_a_sure_teacher_gives_finite_logits(teacher: Teacher) -> None:
    """A prediction that underflows to zero must not become minus infinity."""
    sure = Teacher("sure", teacher.model, {"kernel": teacher.params["kernel"] * 1e4}, "no file")
    options = {"resolution": 8, "area": (0.05, 1), "crops": 1, "temperature": 1.0}
    assert np.isfinite(teachers.fixed_logits(sure, pictures(3), views.policy("fix/cc"), **options)).all()


def test_a_baseline_has_no_fixed_teacher(teacher: Teacher) -> None:
    """Hard labels have nothing to compute."""
    options = {"resolution": 8, "area": (0.05, 1), "crops": 1, "temperature": 1.0}
    with pytest.raises(DistillError, match="baseline without a teacher"):
        teachers.fixed_logits(teacher, pictures(3), views.policy("labels"), **options)


def test_a_checkpoint_is_loaded_with_its_model(path: Path) -> None:
    """The file names its model, and its hash goes into the name of every run."""
    found = teachers.load(str(path), num_classes=10, colours=1, resolution=8)
    assert found.model.num_classes == 10 and found.sha256 == checkpoints.sha256(path)
    stored = checkpoints.flatten(checkpoints.load_npz(path))
    for name, value in checkpoints.flatten(found.params).items():
        np.testing.assert_array_equal(value, stored[name])


@pytest.mark.parametrize(
    ("classes", "colours", "message"),
    [
        (37, 1, r"head/bias has shape \(10,\), not \(37,\)"),
        (10, 3, r"conv_root/kernel has shape .*, not \(5, 5, 3, 8\)"),
    ],
)
def test_a_teacher_of_another_data_set_is_refused(path: Path, classes: int, colours: int, message: str) -> None:
    """Other classes or other colours: told before anything is trained."""
    with pytest.raises(DistillError, match=message) as caught:
        teachers.load(str(path), num_classes=classes, colours=colours, resolution=8)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fashoin",
            "unknown teacher 'fashoin'.*'fashion'.*Valid: fashion, R152x2_T_224, .*mock, a path ending in .npz",
        ),
        (
            "R152x2_T_flowers128",
            "R152x2_T_flowers128 is not at hand: download R152x2_T_flowers128.npz .* path as teacher",
        ),
        ("absent.npz", "no checkpoint at absent.npz; check the path"),
    ],
)
def test_a_teacher_that_is_not_at_hand_is_told(name: str, message: str) -> None:
    """Misspelt, published but not here, or a wrong path: one line that says what to do."""
    with pytest.raises(DistillError, match=message) as caught:
        teachers.load(name, num_classes=102, colours=3, resolution=128)
    assert "\n" not in str(caught.value)


def test_every_published_teacher_of_a_preset_is_told_what_to_download() -> None:
    """The large presets name the paper's own teachers."""
    for dataset in ("flowers", "pets", "food", "sun397", "imagenet"):
        teacher = recipes.get(dataset, "fast").teacher
        with pytest.raises(DistillError, match=f"download {teacher}.npz"):
            teachers.load(teacher, num_classes=10, colours=3, resolution=128)


def test_a_damaged_teacher_is_told(path: Path) -> None:
    """Truncated, or of nobody knows which model."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DistillError, match=f"{path} is truncated"):
        teachers.load(str(path), num_classes=10, colours=1, resolution=8)
    checkpoints.save_npz(path, {"head": {"bias": np.zeros(3)}})
    with pytest.raises(DistillError, match=f"{path} does not say which model it holds"):
        teachers.load(str(path), num_classes=10, colours=1, resolution=8)
    checkpoints.save_npz(path, {"head": {"bias": np.zeros(3)}}, {"model": "vgg"})
    with pytest.raises(DistillError, match="unknown model 'vgg'"):
        teachers.load(str(path), num_classes=10, colours=1, resolution=8)


def test_the_mock_teacher_has_something_to_teach() -> None:
    """Its predictions differ between images; a zero head would make every student perfect at once."""
    found = teachers.load("mock", num_classes=10, colours=1, resolution=28)
    images = jax.random.uniform(jax.random.key(0), (4, 28, 28, 1), minval=-1)
    logits = np.asarray(jax.jit(found.model.apply)({"params": found.params}, images))
    assert logits.shape == (4, 10) and logits.std(axis=0).min() > 1e-3
