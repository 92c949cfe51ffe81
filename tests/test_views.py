"""Views: teacher and student see what the policy says, crops are what a plain loop makes of them, draws repeat."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_lib import views
from distill_lib.errors import DistillError
from distill_lib.views import View

BATCH, SIDE, SIZE = 8, 20, 7

# The paper's table: what the teacher sees, how it relates to what the student sees, and mixup.
TABLE = {
    "fix/rs": ("whole", "fixed", "whole", False),
    "fix/cc": ("central", "fixed", "mild", False),
    "fix/ic_ens": ("inception_mean", "fixed", "inception", False),
    "ind/rc": ("mild", "independent", "mild", False),
    "ind/ic": ("inception", "independent", "inception", False),
    "same/rc": ("mild", "same", "mild", False),
    "same/ic": ("inception", "same", "inception", False),
    "mix": ("inception", "same", "inception", True),
}
ALL = views.POLICIES | views.BASELINES


@functools.partial(jax.jit, static_argnames=("batch_size", "crop", "flip", "mixup", "beta", "folded", "whole"))
def sample(key: jax.Array, batch_size: int, **options) -> View:
    """`views.sample`, compiled."""
    return views.sample(key, batch_size, **options)


render = jax.jit(views.render, static_argnums=2)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Noise, so that no two places look alike."""
    return np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def seen(pictures: np.ndarray) -> dict[str, tuple[View, View, np.ndarray, np.ndarray]]:
    """By policy: the teacher's and the student's view, and what each of the two is shown."""

    @jax.jit
    def everything(key: jax.Array, images: jax.Array) -> dict:
        pairs = {name: views.pair(key, policy, BATCH) for name, policy in ALL.items()}
        shown = {name: [views.render(images, view, SIZE) for view in pair] for name, pair in pairs.items()}
        return {name: (*pairs[name], *shown[name]) for name in pairs}

    return jax.tree.map(np.asarray, everything(jax.random.key(0), jnp.asarray(pictures)))


def test_the_eight_policies_are_the_papers() -> None:
    """Key by key what the paper's table says, in its order; only the fixed ones do not mirror."""
    found = {key: (row.teacher, row.relation, row.student, row.mix) for key, row in views.POLICIES.items()}
    assert list(found.items()) == list(TABLE.items())
    assert {key for key, row in views.POLICIES.items() if not row.flip} == {"fix/rs", "fix/cc", "fix/ic_ens"}
    assert {key: (row.teacher, row.student, row.mix) for key, row in views.BASELINES.items()} == {
        "labels": (None, "inception", False),
        "labels/mix": (None, "inception", True),
        "labels/rc": (None, "mild", False),
        "labels/rc/mix": (None, "mild", True),
    }
    assert set(views.NAMES) == set(ALL)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["same/rc", "same/ic", "mix"])
def test_same_policies_show_teacher_and_student_identical_arrays(key: str, seen: dict) -> None:
    """The whole point of consistent teaching, down to the last bit."""
    teacher_view, student_view, teacher_sees, student_sees = seen[key]
    for ours, theirs in zip(teacher_view, student_view, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(teacher_sees, student_sees)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["same/ic", "mix"])
def test_same_policies_have_one_view_for_both(key: str) -> None:
    """It is one object, so that the two cannot drift apart and the picture is rendered once."""

    def is_one(random: jax.Array) -> bool:
        teacher_view, student_view = views.pair(random, ALL[key], BATCH)
        return teacher_view is student_view

    assert is_one(jax.random.key(0))


@pytest.mark.parametrize("key", ["ind/rc", "ind/ic"])
def test_independent_policies_show_teacher_and_student_different_arrays(key: str, seen: dict) -> None:
    """Every image of the batch is cropped differently for the two, with crops of the same kind."""
    teacher_view, student_view, teacher_sees, student_sees = seen[key]
    assert (np.abs(teacher_view.box - student_view.box).max(axis=1) > 1e-3).all()
    assert (np.abs(teacher_sees - student_sees).reshape(BATCH, -1).max(axis=1) > 0.1).all()
    assert (teacher_view.flip != student_view.flip).any()


@pytest.mark.parametrize("key", ["fix/rs", "fix/cc", "fix/ic_ens"])
def test_fixed_policies_never_mirror(key: str, seen: dict) -> None:
    """A stored output was computed for the image as it is."""
    assert not seen[key][1].flip.any()


@pytest.mark.parametrize("key", [key for key in ALL if not key.startswith("fix/")])
def test_other_policies_mirror_some_images(key: str, seen: dict) -> None:
    """And not all of them."""
    assert 0 < seen[key][1].flip.sum() < BATCH


@pytest.mark.parametrize("key", ALL)
def test_students_see_the_crop_and_the_mixture_of_their_policy(key: str, seen: dict) -> None:
    """Whole image; 0.8 of each side anywhere; or an inception crop. Mixed if and only if the policy mixes."""
    view = seen[key][1]
    top, left, height, width = view.box.T
    if ALL[key].student == "whole":
        np.testing.assert_array_equal(view.box, np.tile([0.0, 0, 1, 1], (BATCH, 1)))
    if ALL[key].student == "mild":
        np.testing.assert_allclose([height, width], 0.8, atol=1e-6)
        assert len(np.unique(top)) == len(np.unique(left)) == BATCH
    if ALL[key].student == "inception":
        assert len(np.unique(height)) == BATCH and (height * width).min() < 0.5
    assert ALL[key].mix == (view.weight is not None)


@pytest.mark.slow
def test_a_batch_is_mixed_with_one_lambda_or_one_an_image() -> None:
    """Per batch (default of the paper's code) and per example."""
    key = jax.random.key(3)
    for mixup, count in (("batch", 1), ("example", BATCH)):
        view = sample(key, BATCH, mixup=mixup)
        assert len(np.unique(view.weight)) == count
        assert (np.asarray(view.weight) >= 0).all() and (np.asarray(view.weight) < 1).all()
    lambdas = np.sort(sample(key, 4096, mixup="example").weight)
    np.testing.assert_allclose(lambdas, (np.arange(4096) + 0.5) / 4096, atol=0.03)


def test_lambda_of_a_batch_is_uniform_over_steps() -> None:
    """One lambda ~ U[0, 1] a step."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(2000))
    lambdas = np.sort(jax.jit(jax.vmap(lambda key: views.sample(key, 2, mixup="batch").weight[0]))(keys))
    np.testing.assert_allclose(lambdas, (np.arange(2000) + 0.5) / 2000, atol=0.04)


@pytest.mark.slow
def test_lambda_may_be_of_another_beta_and_folded() -> None:
    """Beta(p, p) has mean 1/2 and variance 1 / (8p + 4); folding takes the larger share; crops stay as they are."""
    key = jax.random.key(3)
    plain, view = sample(key, 1024, mixup="example"), sample(key, 1024, mixup="example", beta=0.2)
    weight = np.asarray(view.weight)
    assert abs(weight.mean() - 0.5) < 0.05 and abs(weight.var() * 5.6 - 1) < 0.1
    np.testing.assert_allclose(view.box, plain.box, atol=1e-6)
    one = sample(key, 4, mixup="batch", beta=0.2).weight
    np.testing.assert_array_equal(one, np.full(4, weight[0]))
    folded = sample(key, 1024, mixup="example", folded=True)
    np.testing.assert_array_equal(folded.weight, np.maximum(plain.weight, 1 - plain.weight))


def test_images_and_labels_are_mixed_alike() -> None:
    """weight * own + (1 - weight) * the next one's, for values of any rank; None changes nothing."""
    weight, partner = np.array([1.0, 0.25, 0.0], np.float32), np.array([1, 2, 0])
    view = View(jnp.zeros((3, 4)), jnp.zeros(3, bool), jnp.asarray(weight))
    numbers = np.random.default_rng(0)
    for shape in ((3,), (3, 5), (3, 2, 2, 1)):
        values = numbers.normal(size=shape).astype(np.float32)
        own = weight.reshape(3, *[1] * (len(shape) - 1))
        np.testing.assert_allclose(views.mix(jnp.asarray(values), view), own * values + (1 - own) * values[partner])
        assert views.mix(values, view._replace(weight=None)) is values


def test_mixed_pictures_are_mixtures_of_the_cropped_pictures(pictures: np.ndarray) -> None:
    """Each image keeps its own crop and flip; mixing comes last."""
    view = sample(jax.random.key(5), BATCH, mixup="example")
    plain = np.asarray(render(pictures, view._replace(weight=None), SIZE))
    weight = np.asarray(view.weight)[:, None, None, None]
    blends = weight * plain + (1 - weight) * np.roll(plain, -1, axis=0)
    np.testing.assert_allclose(render(pictures, view, SIZE), blends, atol=1e-5)


def plain_resize(crop: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize without antialias, pixel by pixel: TensorFlow's half-pixel centres, edges repeated."""
    height, width, colours = crop.shape
    result = np.zeros((size, size, colours))
    for i in range(size):
        for j in range(size):
            y = min(max((i + 0.5) * height / size - 0.5, 0), height - 1)
            x = min(max((j + 0.5) * width / size - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = crop[y0, x0] * (1 - (x - x0)) + crop[y0, x1] * (x - x0)
            bottom = crop[y1, x0] * (1 - (x - x0)) + crop[y1, x1] * (x - x0)
            result[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return result


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 12]))
@settings(max_examples=20)
def test_render_equals_cropping_and_resizing_by_a_plain_loop(seed: int, size: int) -> None:
    """Crops of whole pixels, larger and smaller than the result, with and without mirroring, of an oblong image."""
    numbers = np.random.default_rng(seed)
    images = numbers.integers(0, 256, (4, 9, 6, 2), np.uint8)
    boxes, flips, expected = [], numbers.random(4) < 0.5, []
    for image, flip in zip(images, flips, strict=True):
        height, width = numbers.integers(1, 10), numbers.integers(1, 7)
        top, left = numbers.integers(0, 10 - height), numbers.integers(0, 7 - width)
        boxes.append([top / 9, left / 6, height / 9, width / 6])
        shown = plain_resize(image[top : top + height, left : left + width] / 127.5 - 1, size)
        expected.append(shown[:, ::-1] if flip else shown)
    view = View(jnp.asarray(boxes, jnp.float32), jnp.asarray(flips))
    found = render(images, view, size)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_crops_between_pixels_look_at_the_right_place() -> None:
    """Bilinear interpolation reproduces a ramp exactly, so each pixel tells the place where it was taken."""
    rows, columns = np.mgrid[:40, :30].astype(np.float32)
    images = np.stack([rows / 40, columns / 30], axis=-1)[None]
    top, left, height, width = 0.123, 0.321, 0.4567, 0.5432
    view = View(jnp.array([[top, left, height, width]]), jnp.zeros(1, bool))
    found = np.asarray(render(images, view, 8))[0]
    centre = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(found[:, :, 0], np.tile((top + centre * height - 0.5 / 40)[:, None], 8), atol=1e-5)
    np.testing.assert_allclose(found[:, :, 1], np.tile(left + centre * width - 0.5 / 30, (8, 1)), atol=1e-5)


def test_one_view_at_two_sizes_is_the_same_view() -> None:
    """Teacher at 16 px and student at 8 px see the same crop, flip and mixture: pixels of the small one are means."""
    rows, columns = np.mgrid[:48, :48].astype(np.float32) / 48
    images = np.stack([np.stack([rows, columns], -1), np.stack([columns**2, rows], -1)])
    box = jnp.array([[0.1, 0.2, 0.7, 0.5], [0.25, 0.05, 0.6, 0.8]])
    view = View(box, jnp.array([True, False]), jnp.array([0.3, 0.8]))
    large, small = np.asarray(render(images, view, 16)), np.asarray(render(images, view, 8))
    np.testing.assert_allclose(large.reshape(2, 8, 2, 8, 2, 2).mean(axis=(2, 4)), small, atol=2e-3)


def test_the_whole_view_at_full_size_is_the_image() -> None:
    """uint8 is brought to [-1, 1]; floats are taken as they are."""
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    view = views.still(1)
    found = render(images, view, 16)
    np.testing.assert_allclose(found, images / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose([found.min(), found.max()], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(render(np.asarray(found), view, 16), found, atol=1e-6)


@pytest.mark.parametrize(("shape", "side"), [((20, 20), 0.8), ((20, 40), 0.8), ((40, 20), 0.5), ((20, 30), 1.0)])
def test_evaluation_shows_a_central_square(shape: tuple[int, int], side: float) -> None:
    """`side` of the shorter side, square in pixels, in the middle, never mirrored or mixed."""
    view = views.still(2, side=side, image_aspect=shape[1] / shape[0])
    top, left, height, width = np.asarray(view.box)[0] * np.array([shape[0], shape[1], shape[0], shape[1]])
    np.testing.assert_allclose([height, width], side * min(shape), rtol=1e-5)
    np.testing.assert_allclose([top, left], [(shape[0] - height) / 2, (shape[1] - width) / 2], atol=1e-4)
    assert not view.flip.any() and view.weight is None


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)).map(sorted),
    st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)).map(sorted),
    st.floats(0.4, 2.5),
)
@settings(max_examples=60)
def test_inception_crops_lie_in_the_image_with_area_and_aspect_in_range(
    seed: int, area: list[float], aspect: list[float], image_aspect: float
) -> None:
    """For any range and any shape of image; only where nothing fits the whole image is shown."""
    found = sample(jax.random.key(seed), 16, area=tuple(area), aspect=tuple(aspect), image_aspect=image_aspect)
    top, left, height, width = np.asarray(found.box, np.float64).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 1 + 1e-6).all() and (left + width <= 1 + 1e-6).all()
    whole = (height == 1) & (width == 1)
    cut = ~whole
    in_pixels = width / height * image_aspect
    assert (in_pixels[cut] >= aspect[0] * (1 - 1e-4)).all() and (in_pixels[cut] <= aspect[1] * (1 + 1e-4)).all()
    assert (height[cut] * width[cut] >= area[0] * (1 - 1e-4)).all()
    assert (height[cut] * width[cut] <= area[1] * (1 + 1e-4)).all()
    smallest_aspect, largest_aspect = aspect[0] / image_aspect, aspect[1] / image_aspect
    if area[0] <= 0.95 * min(1, smallest_aspect, 1 / smallest_aspect, largest_aspect, 1 / largest_aspect):
        assert cut.all() or area[1] > 0.99  # everything fits, so nothing falls back to the whole image


def test_heights_of_inception_crops_are_uniform() -> None:
    """As tf.image.sample_distorted_bounding_box: given the aspect, the height is uniform, and not the area."""
    view = sample(jax.random.key(0), 4096, area=(0.25, 1.0), aspect=(1.0, 1.0), image_aspect=1.0)
    top, left, height, width = np.asarray(view.box).T
    np.testing.assert_allclose(np.sort(height), np.linspace(0.5, 1, 4096), atol=0.02)
    np.testing.assert_allclose(height, width, rtol=1e-5)
    for place in (top / (1 - height), left / (1 - width)):
        np.testing.assert_allclose(np.sort(place), np.linspace(0, 1, 4096), atol=0.03)
    assert abs(np.corrcoef(top / (1 - height), left / (1 - width))[0, 1]) < 0.05


def test_aspects_of_inception_crops_are_uniform() -> None:
    """Uniform in width / height in pixels, not in its logarithm, also where the image is not square."""
    view = sample(jax.random.key(1), 4096, area=(0.1, 0.3), aspect=(0.75, 4 / 3), image_aspect=1.5)
    aspect = np.asarray(view.box)[:, 3] / np.asarray(view.box)[:, 2] * 1.5
    np.testing.assert_allclose(np.sort(aspect), np.linspace(0.75, 4 / 3, 4096), atol=0.02)


def test_half_of_the_crops_are_mirrored() -> None:
    """Flips are fair, and independent of the crop."""
    view = sample(jax.random.key(2), 4096)
    assert abs(float(view.flip.mean()) - 0.5) < 0.03
    assert abs(np.corrcoef(view.flip, view.box[:, 2])[0, 1]) < 0.05


def test_a_share_of_the_images_is_shown_whole() -> None:
    """The option that keeps a teacher good at whole images."""
    view = sample(jax.random.key(2), 4096, whole=0.25)
    whole = (np.asarray(view.box) == [0, 0, 1, 1]).all(axis=1)
    assert abs(whole.mean() - 0.25) < 0.03
    assert abs(float(np.asarray(view.flip)[whole].mean()) - 0.5) < 0.06


@pytest.mark.parametrize("crop", views.CROPS)
def test_a_draw_depends_on_the_key_and_the_position_alone(crop: str) -> None:
    """A smaller batch, or a device's share of it, sees the very same views as the beginning of a larger batch."""
    key = jax.random.fold_in(jax.random.key(7), 11)
    small, large = (sample(key, size, crop=crop, mixup="example") for size in (4, BATCH))
    for name in ("box", "flip", "weight"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name)[:4])
    again = sample(key, BATCH, crop=crop, mixup="example")
    jax.tree.map(np.testing.assert_array_equal, large, again)


def test_independent_draws_depend_on_the_key_and_the_position_alone() -> None:
    """That holds for the teacher's own view too, and the lambda of a batch does not depend on its size."""
    both = jax.jit(lambda key: [[views.pair(key, ALL[name], size) for size in (4, 8)] for name in ("ind/ic", "mix")])
    for small, large in both(jax.random.key(7)):
        for ours, theirs in zip(small, large, strict=True):
            np.testing.assert_array_equal(ours.box, theirs.box[:4])
            np.testing.assert_array_equal(ours.flip, theirs.flip[:4])
            if ours.weight is not None:
                np.testing.assert_array_equal(ours.weight, theirs.weight[:4])


def test_every_step_and_position_has_a_view_of_its_own() -> None:
    """No two images of a batch, and no two steps, share a crop."""
    first, second = (np.asarray(sample(jax.random.fold_in(jax.random.key(0), step), 4096).box) for step in (0, 1))
    assert len(np.unique(np.concatenate([first, second]), axis=0)) > 8190


def test_views_are_the_same_on_two_devices(pictures: np.ndarray) -> None:
    """Sharding the batch changes neither the draw nor, but for rounding, the picture."""
    devices = jax.devices()
    assert len(devices) == 2

    @jax.jit
    def shown(images: jax.Array) -> tuple[View, jax.Array]:
        view = views.sample(jax.random.key(4), BATCH, mixup="example")
        return view, views.render(images, view, SIZE)

    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    one, two = shown(jax.device_put(pictures, devices[0])), shown(jax.device_put(pictures, split))
    np.testing.assert_array_equal(one[0].flip, two[0].flip)
    np.testing.assert_allclose(one[0].box, two[0].box, atol=1e-6)
    np.testing.assert_allclose(one[0].weight, two[0].weight, atol=1e-6)
    np.testing.assert_allclose(one[1], two[1], atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: views.policy("same/cc"), "unknown policy 'same/cc'.*Valid: fix/rs, fix/cc, .*mix, labels, labels/mix"),
        (lambda: views.sample(jax.random.key(0), 2, crop="centre"), "unknown crop.*Valid: whole, central, mild, incep"),
        (lambda: views.sample(jax.random.key(0), 2, mixup="all"), "unknown mixup 'all'.*Valid: batch, example"),
    ],
)
def test_unknown_names_are_told_with_the_valid_ones(call, message: str) -> None:
    """One line, before anything is drawn."""
    with pytest.raises(DistillError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_image_in_the_corner_of_a_canvas_is_shown_as_if_it_were_alone() -> None:
    """Boxes are fractions of the true image, and nothing beyond its border is shown, whatever lies there."""
    numbers = np.random.default_rng(4)
    sizes = np.array([[20, 12], [9, 32]])
    canvas = np.full((2, 32, 32, 3), 255, np.uint8)
    view = sample(jax.random.key(3), 2, area=(0.05, 1.0), image_aspect=sizes[:, 1] / sizes[:, 0])
    alone = []
    for number, (height, width) in enumerate(sizes):
        image = numbers.integers(0, 200, (1, height, width, 3), np.uint8)
        canvas[number, :height, :width] = image[0]
        own = jax.tree.map(lambda part: part[number : number + 1], view)  # noqa: B023
        alone.append(np.asarray(render(image, own, 16))[0])
    found = render(canvas, view, 16, sizes)
    np.testing.assert_allclose(found, np.stack(alone), atol=1e-4)


def test_a_crop_of_less_than_a_pixel_is_not_darkened() -> None:
    """Tiny images: weights of the pixels sum to one wherever a crop begins."""
    box = jnp.array([[0.9, 0.6, 0.1, 0.2], [0.0, 0.95, 0.3, 0.05]])
    view = View(box, jnp.zeros(2, bool))
    shown = render(jnp.full((2, 3, 4, 1), 255, jnp.uint8), view, SIZE)
    np.testing.assert_allclose(shown, 1.0, atol=1e-6)
