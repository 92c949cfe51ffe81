"""Teachers: loaded with care, and fixed outputs are the mean of what the teacher says."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from distill_lib import datasets, losses, models, recipes, records, teachers, views, weights
from distill_lib.errors import DistillError
from distill_lib.input_pipeline.splits import InMemory
from distill_lib.models import bit
from distill_lib.models.ensemble import Ensemble, Member
from distill_lib.teachers import Teacher, published
from distill_lib.train import task

MODEL = "bit_r11w8"


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """A linear teacher of 8 x 8 grey images; every pixel counts by its place."""
    model, variables = tiny.linear(5, 64)
    return Teacher("linear", Ensemble((Member(model),)), (variables,), "no file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of a small BiT for ten classes of grey images."""
    path = tmp_path / "teacher.npz"
    weights.save_npz(path, tiny.random_params(MODEL, 10), {"model": MODEL})
    return path


def softmax(logits: np.ndarray) -> np.ndarray:
    """The plain formula, float64."""
    logits = np.asarray(logits, np.float64)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def pictures(count: int) -> np.ndarray:
    """Noise, 10 x 10 pixels."""
    return np.random.default_rng(0).integers(0, 256, (count, 10, 10, 1), np.uint8)


def noise(count: int) -> np.ndarray:
    """Images of 8 x 8 pixels in [-1, 1]."""
    return np.random.default_rng(2).uniform(-1, 1, (count, 8, 8, 1)).astype(np.float32)


def kernel_of(teacher: Teacher) -> np.ndarray:
    """The weights of a linear teacher."""
    return np.asarray(teacher.variables[0]["params"]["kernel"])


def said(teacher: Teacher, shown: np.ndarray, temperature: float) -> np.ndarray:
    """The teacher's tempered prediction for images in [-1, 1], in NumPy."""
    return softmax(shown.reshape(len(shown), -1) @ kernel_of(teacher) / temperature)


def said_once(
    teacher: Teacher,
    images: np.ndarray,
    policy: str,
    *,
    crops: int,
    temperature: float,
    area: tuple[float, float] = (0.05, 1),
) -> np.ndarray:
    """A fixed teacher's outputs for these images, rendered at 8 pixels."""
    recipe = recipes.get("fashion", "smoke", policy=policy, ensemble_crops=crops, temperature=temperature)
    recipe = dataclasses.replace(recipe, crop_area=area, resolution=8)
    split = InMemory(lambda: datasets.Arrays(images, np.zeros(len(images), int)))
    return task.fixed_targets(teacher, split, recipe)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_fixed_teacher_says_what_it_says_of_the_central_crop(teacher: Teacher, temperature: float) -> None:
    """`fix/cc`: the 8 x 8 pixels in the middle of 10 x 10, also beyond the first chunk of images."""
    images = pictures(515)
    found = said_once(teacher, images, "fix/cc", crops=9, temperature=temperature)
    assert found.shape == (515, 5) and found.dtype == np.float32
    expected = said(teacher, images[:, 1:9, 1:9] / 127.5 - 1, temperature)
    np.testing.assert_allclose(softmax(found / temperature), expected, atol=1e-5)


def test_a_fixed_teacher_says_what_it_says_of_the_whole_image(teacher: Teacher) -> None:
    """`fix/rs`: the image resized."""
    images = pictures(3)
    options = {"crops": 9, "temperature": 2.0}
    found = said_once(teacher, images, "fix/rs", **options)
    expected = said(teacher, np.asarray(views.render(jnp.asarray(images), views.still(3), 8)), 2.0)
    np.testing.assert_allclose(softmax(found / 2), expected, atol=1e-5)


@pytest.mark.slow
def test_an_ensemble_over_crops_is_the_mean_of_its_predictions(teacher: Teacher) -> None:
    """`fix/ic_ens`: predictions at the temperature are averaged, not logits; crops are not mirrored."""
    images, temperature, area = pictures(6), 3.0, (0.3, 0.9)
    options = {"area": area, "temperature": temperature}
    found = said_once(teacher, images, "fix/ic_ens", crops=4, **options)
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
    options = {"area": (0.3, 0.9), "temperature": 3.0}
    images = pictures(6)
    few, again, many, more = (
        softmax(said_once(teacher, images, "fix/ic_ens", crops=crops, **options) / 3) for crops in (2, 2, 100, 200)
    )
    np.testing.assert_array_equal(few, again)
    assert np.abs(many - more).max() < np.abs(few - more).max() / 2


def test_a_sure_teacher_gives_finite_logits(teacher: Teacher) -> None:
    """A prediction that underflows to zero must not become minus infinity."""
    variables = {"params": {"kernel": kernel_of(teacher) * 1e4}}
    sure = Teacher("sure", teacher.ensemble, (variables,), "no file")
    options = {"crops": 1, "temperature": 1.0}
    assert np.isfinite(said_once(sure, pictures(3), "fix/cc", **options)).all()


@pytest.mark.slow
def test_a_checkpoint_is_loaded_with_its_model(path: Path) -> None:
    """The file names its model, and its hash goes into the name of every run."""
    found = teachers.load(str(path), num_classes=10, channels=1, resolution=8)
    (member,) = found.ensemble.members
    assert member.model.num_classes == 10 and found.sha256 == weights.sha256(path)
    images = noise(4)
    expected = models.logits(models.create(MODEL, 10), {"params": weights.load_npz(path)}, images)
    np.testing.assert_allclose(found.logits(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in teachers.EMBEDDED if name.startswith("fashion")])
def test_an_embedded_teacher_is_as_right_as_the_record_of_its_run_says(name: str) -> None:
    """So that file and record belong together; on the validation images, which students are chosen by."""
    run = weights.load_metadata(teachers.EMBEDDED[name])["run_id"]
    known = records.load(records.find_results() / "fashion_teacher_full" / run)["result"]["validation_top1"]
    pictures, labels, _ = datasets.arrays("fashion", "validation")
    teacher = teachers.load(name, num_classes=10, channels=1, resolution=28)
    right = jax.jit(teacher.logits)(views.normalize(pictures)).argmax(-1) == labels
    assert abs(float(right.mean()) - known) < 0.003  # rounding, and half precision, may turn a picture or two


def test_a_teacher_is_folded_when_it_is_loaded(path: Path) -> None:
    """What never changes is not computed in every step: the weights are standardised already."""
    found = teachers.load(str(path), num_classes=10, channels=1, resolution=8)
    kernel = np.asarray(found.variables[0]["params"]["root_block"]["conv_root"]["kernel"])
    np.testing.assert_allclose(kernel.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(kernel.std(axis=(0, 1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 8, 6, 1), (8, 8, 1)])
def test_images_of_another_shape_are_told(path: Path, shape: tuple[int, ...]) -> None:
    """Colour instead of grey, not square, or without a batch: one line that says what is wanted."""
    found = teachers.load(str(path), num_classes=10, channels=1, resolution=8)
    with pytest.raises(DistillError, match=r"is shown images of shape .*; it takes \(batch, size, size, 1\)") as caught:
        found.logits(np.zeros(shape, np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_teacher_gets_its_own_size_and_range_of_values(path: Path, tmp_path: Path) -> None:
    """Stated in the file: here 16 x 16 pixels from 0 (black) to 3 (white), whatever the student sees."""
    picky = tmp_path / "picky.npz"
    facts = {"model": MODEL, "resolution": 16, "input_range": [0, 3]}
    weights.save_npz(picky, weights.load_npz(path), facts)
    found = teachers.load(str(picky), num_classes=10, channels=1, resolution=8)
    images = noise(3)
    larger = views.render(images, views.still(3), 16)
    plain = teachers.load(str(path), num_classes=10, channels=1, resolution=16)
    np.testing.assert_allclose(found.logits(images), plain.logits((larger + 1) * 1.5), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_size_that_a_teacher_is_shown_can_be_chosen(path: Path) -> None:
    """After an @: the same file at two sizes is two teachers, and an ensemble."""
    load = functools.partial(teachers.load, num_classes=10, channels=1, resolution=8)
    images = noise(3)
    larger = views.render(images, views.still(3), 12)
    shown = load(f"{path}@12").logits(images)
    np.testing.assert_allclose(shown, load(str(path), resolution=12).logits(larger), rtol=1e-4, atol=1e-4)
    both = load(f"{path}@8 + {path}@12").logits(images)
    np.testing.assert_allclose(both, (shown + load(str(path)).logits(images)) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_an_ensemble_says_the_mean(path: Path, tmp_path: Path, mean: str) -> None:
    """Two files with a plus between: the mean of logits (paper), or of probabilities at the loss's temperature."""
    other = tmp_path / "other.npz"
    weights.save_npz(other, tiny.random_params(MODEL, 10, seed=1), {"model": MODEL})
    load = functools.partial(teachers.load, num_classes=10, channels=1, resolution=8, ensemble=mean)
    both = load(f"{path} + {other}")
    images = noise(5)
    one, two = (np.asarray(load(str(file)).logits(images)) for file in (path, other))
    found = both.ensemble.logits(both.variables, lambda size: images, 3.0)
    if mean == "logits":
        np.testing.assert_allclose(found, (one + two) / 2, rtol=1e-4, atol=1e-4)
    else:
        np.testing.assert_allclose(softmax(found / 3), (softmax(one / 3) + softmax(two / 3)) / 2, atol=1e-5)
    assert len({both.sha256, load(str(path)).sha256, load(f"{other} + {path}").sha256}) == 3


def test_the_mean_of_probabilities_has_the_gradient_of_the_sum_of_divergences() -> None:
    """The released code adds one KL for each teacher; to the student that is the same, but for a factor."""
    one, two, student = np.random.default_rng(0).normal(0, 2, (3, 4, 6)).astype(np.float32)
    ensemble = Ensemble((Member(tiny.Linear(6)),) * 2, "probabilities")
    variables = tuple({"params": {"kernel": kernel}} for kernel in (one, two))
    eye = jnp.eye(4).reshape(4, 2, 2, 1)
    target = ensemble.logits(variables, lambda size: eye, 2.0)
    mean = jax.grad(lambda logits: losses.kl(logits, target, temperature=2.0).sum())(student)
    each = jax.grad(lambda logits: sum(losses.kl(logits, said, temperature=2.0).sum() for said in (one, two)))(student)
    np.testing.assert_allclose(2 * mean, each, rtol=1e-3, atol=1e-5)


def test_an_unknown_mean_is_told(path: Path) -> None:
    """One line with the valid ones."""
    with pytest.raises(DistillError, match="unknown ensemble 'votes'.*Valid: logits, probabilities"):
        teachers.load(f"{path} + {path}", num_classes=10, channels=1, resolution=8, ensemble="votes")


@pytest.mark.parametrize(
    ("classes", "channels", "message"),
    [
        (37, 1, "a head of 10 classes, the model one of 37"),
        (10, 3, r"conv_root/kernel has shape .*, not \(5, 5, 3, 8\)"),
    ],
)
def test_a_teacher_of_another_data_set_is_refused(path: Path, classes: int, channels: int, message: str) -> None:
    """Other classes or other channels: told before anything is trained."""
    with pytest.raises(DistillError, match=message) as caught:
        teachers.load(str(path), num_classes=classes, channels=channels, resolution=8)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fashoin",
            "unknown teacher 'fashoin'.*Valid: fashion, .*imagenet_lite0, .*R152x2_T_224, .*mock, a path ending in",
        ),
        ("absent.npz", "no checkpoint at absent.npz; check the path"),
    ],
)
def test_a_teacher_that_is_not_at_hand_is_told(name: str, message: str) -> None:
    """Misspelt, published but not here, or a wrong path: one line that says what to do."""
    with pytest.raises(DistillError, match=message) as caught:
        teachers.load(name, num_classes=102, channels=3, resolution=128)
    assert "\n" not in str(caught.value)


def test_every_teacher_of_a_preset_is_published_and_fits_its_data() -> None:
    """The large presets name the paper's own teachers, of the right number of classes, at the presets' resolution."""
    for dataset in ("flowers", "pets", "food", "sun397", "imagenet"):
        recipe = recipes.get(dataset, "fast")
        checkpoint = published.CHECKPOINTS[recipe.teacher]
        assert checkpoint.num_classes == datasets.get(dataset).num_classes
        assert checkpoint.resolution == recipe.resolution and checkpoint.model == "bit_r152x2"


def test_a_published_file_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files hold no facts about themselves: which model and which size comes from the table."""
    monkeypatch.setattr(bit, "STAGES", {152: (1,)})
    params = tiny.random_params("bit_r152x2", 102, channels=3)
    path = tmp_path / "R152x2_T_flowers128.npz"
    weights.save_npz(path, params)
    found = teachers.load(str(path), num_classes=102, channels=3, resolution=64)
    assert found.ensemble.members[0].resolution == 128


def test_a_damaged_teacher_is_told(path: Path) -> None:
    """Truncated, or of nobody knows which model."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DistillError, match=f"{path} is truncated"):
        teachers.load(str(path), num_classes=10, channels=1, resolution=8)
    weights.save_npz(path, {"head": {"bias": np.zeros(3)}})
    with pytest.raises(DistillError, match=f"{path} does not say which model it holds"):
        teachers.load(str(path), num_classes=10, channels=1, resolution=8)
    weights.save_npz(path, {"head": {"bias": np.zeros(3)}}, {"model": "vgg"})
    with pytest.raises(DistillError, match="unknown model 'vgg'"):
        teachers.load(str(path), num_classes=10, channels=1, resolution=8)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("model", value) for value in (5, None, ["bit_r11w8"])],
        *[("resolution", value) for value in ("big", -3, 8.5, True, 100_000)],
        *[("input_range", value) for value in (3, "ab", ["a", "b"], [0], [1, 1], [0, 10**400], [0, float("nan")])],
    ],
)
def test_facts_of_another_kind_are_told(tmp_path: Path, name: str, value: object) -> None:
    """What a file says of itself is as little to be trusted as what it holds."""
    path = tmp_path / "teacher.npz"
    weights.save_npz(path, {"head": {"bias": np.zeros(3)}}, {"model": MODEL} | {name: value})
    with pytest.raises(DistillError, match=f"{path} says that its {name} is .*: save it with a right one") as caught:
        teachers.load(str(path), num_classes=3, channels=1, resolution=8)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", ["2049", "100000", "9" * 5000])
def test_a_teacher_of_endless_images_is_refused(side: str) -> None:
    """Before a batch of them takes all memory."""
    with pytest.raises(DistillError, match="teacher fashion is to be shown .* pixels; at most 2048 are"):
        recipes.get("fashion", "quick", teacher=f"fashion@{side}")


@pytest.mark.slow
def test_the_mock_teacher_has_something_to_teach() -> None:
    """Its predictions differ between images; a zero head would make every student perfect at once."""
    found = teachers.load("mock", num_classes=10, channels=1, resolution=28)
    images = jax.random.uniform(jax.random.key(0), (4, 28, 28, 1), minval=-1)
    logits = np.asarray(jax.jit(found.logits)(images))
    assert logits.shape == (4, 10) and logits.std(axis=0).min() > 1e-3
