"""Streamed batches: a function of (seed, step), the same as on the device, whoever decodes them and from where on."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import itertools
import os
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from distill_lib import crops, datasets, recipes, views
from distill_lib.datasets import decode
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import sampler, stream
from distill_lib.views import Crops

COUNT, BATCH, SIZE = 37, 8, 24
PETS = datasets.get("pets")
SHAPES = ((30, 40), (41, 29), (33, 33))


class Example(NamedTuple):
    """What a data set stores of an image."""

    image: Any
    label: int
    name: str


@dataclass(frozen=True)
class Photos:
    """Small JPEGs of several shapes, some of them broken."""

    count: int = COUNT
    broken: tuple[int, ...] = ()
    cut: tuple[int, ...] = ()
    dataset: datasets.Dataset = PETS

    def __len__(self) -> int:
        return self.count

    def encoded(self, index: int) -> Example:
        """Broken ones have no header; those that are cut have one, and then too little."""
        data = photo(index % COUNT)
        if index in self.broken:
            data = b"no image"
        if index in self.cut:
            data = data[: len(data) - 300]
        return Example(data, index % 10, f"photo_{index}.jpg")


def photo(index: int) -> bytes:
    """A JPEG that looks like no other."""
    height, width = SHAPES[index % len(SHAPES)]
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 5 + index * 3, columns * 6 - index, (rows + columns) * index], -1) % 256
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def recipe(**settings) -> recipes.Recipe:
    """Batches of small crops."""
    return recipes.get("pets", "fast", **({"seed": 5, "batch_size": BATCH, "resolution": SIZE} | settings))


def take(
    count: int, source: Photos | None = None, start_step: int = 0, *, made: dict | None = None, **settings
) -> list[tuple[int, Crops]]:
    """The first batches of a stream."""
    given = stream.batches(source or Photos(), recipe(**settings), start_step, **({"workers": 0} | (made or {})))
    with contextlib.closing(given):
        return list(itertools.islice(given, count))


def assert_equal(ours: tuple[int, Crops], theirs: tuple[int, Crops]) -> None:
    """Every array, to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@functools.partial(jax.jit, static_argnames=("policy", "area", "whole"))
def pair(key: jax.Array, at: int, policy: str, ratio: jax.Array, **options) -> tuple[views.View, views.View]:
    """The two views of a training step."""
    return views.pair(jax.random.fold_in(key, at), views.policy(policy), len(ratio), image_aspect=ratio, **options)


@pytest.mark.parametrize("policy", ["same/ic", "ind/ic", "ind/rc", "fix/rs", "labels/mix"])
def test_a_batch_shows_what_the_device_renders(policy: str) -> None:
    """The examples of `sampler`, in the views that the training step draws of the very same images.

    That a crop of a file is what the device renders of its pixels is tested with `decode`.
    """
    sizes = () if policy == "labels/mix" or policy.startswith("fix") else (SIZE, 32)
    source = Photos()
    for number, batch in take(2, start_step=3, made={"teacher_sizes": sizes}, policy=policy, whole=0.2):
        indices = sampler.batch_indices(5, number, BATCH, COUNT)
        np.testing.assert_array_equal(batch.targets, indices % 10)
        assert batch.targets.dtype == np.int32
        images = [decode.decode(source.encoded(int(index)).image) for index in indices]
        ratio = np.array([image.shape[1] / image.shape[0] for image in images], np.float32)
        drawn = pair(views.view_key(5), number, policy, ratio, whole=0.2)
        shown = [(batch.student, drawn[1], SIZE)] + [(crop, drawn[0], size) for size, crop in batch.teacher.items()]
        assert set(batch.teacher) == set(sizes) - (set() if policy.startswith("ind") else {SIZE})
        for pictures, view, size in shown:
            assert pictures.dtype == np.uint8 and pictures.shape == (BATCH, size, size, 3)
            box, flip = np.asarray(view.box), np.asarray(view.flip)
            for place, image in enumerate(images):
                (expected,) = decode.crops(image, [decode.Look(box[place], bool(flip[place]), size)])
                assert np.abs(pictures[place].astype(int) - expected).max() <= 1


def test_a_shared_view_is_decoded_once_and_an_independent_one_is_another() -> None:
    """With one view and one size there is one array for teacher and student."""
    made = {"teacher_sizes": (SIZE,)}
    ((_, same),), ((_, own),) = (take(1, made=made, policy=policy) for policy in ("same/ic", "ind/ic"))
    assert same.teacher == take(1, policy="labels")[0][1].teacher == {}
    np.testing.assert_array_equal(own.student, same.student)
    assert (np.abs(own.teacher[SIZE].astype(int) - same.student).reshape(BATCH, -1).max(axis=1) > 20).all()


@pytest.mark.parametrize("policy", ["ind/ic", "same/ic", "ind/rc", "same/rc", "fix/rs", "fix/cc", "mix"])
@pytest.mark.parametrize(("area", "whole"), [((0.05, 1.0), 0.0), ((0.4, 0.7), 0.3)])
def test_boxes_and_flips_are_those_of_the_training_step(policy: str, area: tuple[float, float], whole: float) -> None:
    """Teacher's and student's, for images of many shapes, in any order of the positions."""
    numbers = np.random.default_rng(0)
    ratio = np.exp(numbers.uniform(-1, 1, 64)).astype(np.float32)
    for seed, at in ((0, 0), (7, 3), (2**31, 10**6), (2**32 - 1, 2**31 - 1)):
        wanted = pair(views.view_key(seed), at, policy, ratio, area=area, whole=whole)
        order = numbers.permutation(64)[:40]
        options = {"policy": policy, "crop_area": area, "whole": whole, "batch_size": 64}
        maker = stream._Maker(Photos(), recipe(seed=seed, **options), range(64), (9,), None)
        looks = maker._looks([each[order] for each in maker.numbers(at)], ratio[order])
        for place, own in zip(order, looks, strict=True):
            for look, view in zip(own, reversed(wanted), strict=True):
                np.testing.assert_allclose(look.box, np.asarray(view.box)[place], rtol=0, atol=2**-22)
                assert look.flip == view.flip[place]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(7, 160), (160, 7), (6, 240), (240, 6), (1, 99)])
@pytest.mark.parametrize("kind", ["inception", "mild"])
def test_crops_of_very_oblong_images_are_the_same_on_host_and_device(shape: tuple[int, int], kind: str) -> None:
    """Beyond 20:1, in a canvas or not: where no crop of a twentieth of the area fits, the whole image is shown."""
    height, width = shape
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    canvas = np.full((1, 240, 240, 3), 255, np.uint8)
    canvas[0, :height, :width] = pixels
    ratio, key = np.full(64, width / height, np.float32), jax.random.fold_in(views.view_key(0), 5)
    view = views.sample(key, 64, crop=kind, image_aspect=ratio)
    boxes, flips = crops.draw(np, np.asarray(views.numbers(key, 64)), ratio, crop=kind, flip=True)
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes, view.box, rtol=0, atol=2**-22)
    top, left, high, wide = boxes.astype(np.float64).T
    assert (top >= 0).all() and (left >= 0).all() and (top + high <= 1 + 1e-6).all() and (left + wide <= 1 + 1e-6).all()
    if kind == "inception":
        whole, in_pixels = (high == 1) & (wide == 1), wide * width / (high * height)
        assert whole.all() == (max(ratio[0], 1 / ratio[0]) > 4 / 3 / 0.05)
        assert (in_pixels[~whole] > 0.749).all() and (in_pixels[~whole] < 1.334).all()
    looks = [decode.Look(box, bool(flip), 9) for box, flip in zip(boxes[:8], flips, strict=False)]
    shown = np.stack(decode.crops(pixels, looks))
    some = jax.tree.map(lambda leaf: leaf[:8], view)
    for images, extents in ((pixels[None], None), (canvas, jnp.array([[height, width]]))):
        images = jnp.broadcast_to(images, (8, *images.shape[1:]))
        extents = None if extents is None else jnp.broadcast_to(extents, (8, 2))
        rendered = (np.asarray(views.render(images, some, 9, extents)) + 1) * 127.5
        assert np.abs(shown - rendered).max() <= 0.51, "grey levels: a crop is rounded to the nearest"


def test_accelerators_alone_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where JAX may not compute on the host, views are drawn where it does."""

    def none(backend: str) -> list[jax.Device]:
        raise RuntimeError(f"Unknown backend {backend}")

    (expected,) = take(1)
    monkeypatch.setattr(stream.jax, "local_devices", none)
    assert_equal(take(1)[0], expected)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told of broken images."""
    told: list[str] = []
    monkeypatch.setattr(stream.logger, "warning", lambda text, what: told.append(text % what))
    return told


def test_workers_change_nothing_but_the_speed(lines: list[str]) -> None:
    """Two of them, from the middle on, with broken images: the same batches and report. They end with the stream."""
    source = Photos(broken=(3, 4), cut=(20,))
    made, policy = {"teacher_sizes": (16,)}, "ind/ic"
    alone = take(6, source, 2, made=made, policy=policy)
    before = running()
    found = stream.batches(source, recipe(policy=policy), 2, workers=2, **made)
    for ours, theirs in zip(alone, found, strict=False):
        assert_equal(ours, theirs)
    assert lines[:3] == lines[3:] and len(lines) == 6
    started = running() - before
    assert len(started) == 2
    found.close()
    for thread in started:
        thread.join(10)
        assert not thread.is_alive()
    with pytest.raises(StopIteration):
        next(found)


def running() -> set[threading.Thread]:
    """Threads of streams that live."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("stream")}


def test_a_stream_that_nobody_closes_ends_its_threads() -> None:
    """With the last reference to it, while they are at work."""
    found = stream.batches(Photos(), recipe(), workers=2)
    next(found)
    threads = running()
    assert threads
    del found
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_starting_later_equals_skipping() -> None:
    """Across the end of an epoch, which is at 37 of 8 x 5 images; nothing before is read."""
    read = []

    class Watched(Photos):
        def encoded(self, index: int) -> Example:
            read.append(index)
            return super().encoded(index)

    for ours, theirs in zip(take(6)[4:], take(2, Watched(), start_step=4), strict=True):
        assert_equal(ours, theirs)
    assert read == [index for step in (4, 5) for index in sampler.batch_indices(5, step, BATCH, COUNT)]


def test_seeds_and_steps_show_other_pictures() -> None:
    """Also where an example comes again."""
    (_, first), (_, second) = take(2, Photos(count=BATCH))
    ((_, other),) = take(1, Photos(count=BATCH), seed=6)
    for batch in (second, other):
        order = [list(batch.targets).index(label) for label in first.targets]
        different = np.abs(first.student.astype(int) - batch.student[order]).reshape(BATCH, -1).max(axis=1) > 5
        assert different.all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers hand over a few images at once; how many is of no consequence."""
    whole = take(2, batch_size=10)
    monkeypatch.setattr(stream, "CHUNK", 3)
    for ours, theirs in zip(whole, take(2, batch_size=10), strict=True):
        assert_equal(ours, theirs)


def test_the_rows_of_several_processes_are_a_batch() -> None:
    """Each makes the rows of its own devices, and no others; together they are what one process makes."""
    (whole,) = take(1, batch_size=10)
    shares = [take(1, made={"rows": slice(start, start + 5)}, batch_size=10)[0][1] for start in (0, 5)]
    assert [len(share.targets) for share in shares] == [5, 5]
    assert_equal((0, jax.tree.map(lambda *parts: np.concatenate(parts), *shares)), whole)


@pytest.mark.parametrize("kind", ["broken", "cut"])
def test_a_broken_image_is_told_once_and_the_next_one_is_shown(kind: str, lines: list[str]) -> None:
    """With file name and index; 36 and 0 are neighbours. It is counted, and the others are as they were."""
    source = Photos(**{kind: (36, 0, 7)})
    bad: dict[int, str] = {}
    batches = take(3, source, made={"bad": bad}, batch_size=COUNT)
    assert bad == {index: f"photo_{index}.jpg" for index in (36, 0, 7)}
    assert len(lines) == 3 and "image 7, photo_7.jpg, cannot be decoded (" in "\n".join(lines)
    for (number, batch), (_, good) in zip(batches, take(3, batch_size=COUNT), strict=True):
        indices = sampler.batch_indices(5, number, COUNT, COUNT)
        wanted = np.select([indices == 36, indices == 0, indices == 7], [1, 1, 8], indices)
        np.testing.assert_array_equal(batch.targets, wanted % 10)
        kept = wanted == indices
        np.testing.assert_array_equal(batch.student[kept], good.student[kept])
        assert (batch.student[~kept] != good.student[~kept]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_can_stop_the_run(workers: int) -> None:
    """One line that says which and what to do."""
    with pytest.raises(DistillError, match="image 7, photo_7.jpg, cannot be decoded.*on_bad_image") as caught:
        take(5, Photos(broken=(7,)), made={"on_bad_image": "raise", "workers": workers})
    assert "\n" not in str(caught.value)


def test_where_nothing_can_be_decoded_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than search for ever; threads tell it as well."""
    for workers in (0, 2):
        with pytest.raises(DistillError, match="none of 37 images up to .* can be decoded"):
            take(1, Photos(broken=tuple(range(COUNT))), made={"workers": workers})
    monkeypatch.setattr(stream, "ATTEMPTS", 4)
    with pytest.raises(DistillError, match="none of 4 images"):
        take(5, Photos(cut=(10, 11, 12, 13)))


def test_by_default_broken_images_are_told_on_stderr(capsys: pytest.CaptureFixture) -> None:
    """A line each."""
    take(5, Photos(broken=(7,)))
    assert capsys.readouterr().err.count("photo_7.jpg") == 1


def test_grey_images_have_one_channel() -> None:
    """Sets of arrays need no decoding."""

    class Grey(Photos):
        def encoded(self, index: int) -> Example:
            return Example(np.full((28, 28, 1), index, np.uint8), index % 10, str(index))

    ((_, batch),) = take(1, Grey(dataset=datasets.get("fashion")))
    assert batch.student.shape == (BATCH, SIZE, SIZE, 1)
    np.testing.assert_array_equal(batch.student[:, 0, 0, 0], sampler.batch_indices(5, 0, BATCH, COUNT))


@pytest.mark.parametrize(
    ("settings", "start", "options", "message"),
    [
        ({}, 0, {"on_bad_image": "skip"}, "unknown on_bad_image 'skip'.*Valid: substitute, raise"),
        ({"batch_size": 38}, 0, {}, "a batch of 38 cannot be taken from 37 examples"),
        ({}, -1, {}, "step -1 is negative"),
        ({}, 0, {"workers": -1}, "workers must not be negative, got -1"),
    ],
)
def test_bad_input_is_told_at_once(settings: dict, start: int, options: dict, message: str) -> None:
    """Before a thread is started."""
    with pytest.raises(DistillError, match=message):
        stream.batches(Photos(), recipe(**settings), start, **options)


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_memory_stays_flat_over_an_epoch() -> None:
    """4,000 images, of which decoded ones would take 55 MB: nothing is kept of what was shown."""
    source = Photos(count=4000)
    held = []
    for batch in itertools.islice(stream.batches(source, recipe(batch_size=100, resolution=64), workers=0), 40):
        del batch
        gc.collect(0)
        held.append(resident())
    assert max(held[10:]) - held[9] < 8 * 2**20, [size // 2**20 for size in held]
