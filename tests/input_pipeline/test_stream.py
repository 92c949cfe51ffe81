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
import numpy as np
import pytest
from PIL import Image

from distill_lib import views
from distill_lib.datasets import decode
from distill_lib.errors import DistillError
from distill_lib.input_pipeline import sampler, stream
from distill_lib.train import step

COUNT, BATCH, SIZE = 37, 8, 24
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


def take(count: int, source: Photos | None = None, **options) -> list[stream.Batch]:
    """The first batches of a stream."""
    usual = {"seed": 5, "batch_size": BATCH, "student_size": SIZE, "workers": 0}
    with contextlib.closing(stream.batches(source or Photos(), **(usual | options))) as found:
        return list(itertools.islice(found, count))


def assert_equal(ours: stream.Batch, theirs: stream.Batch) -> None:
    """Every array, to the last bit."""
    assert ours.step == theirs.step and ours.teacher.keys() == theirs.teacher.keys()
    for name in ("labels", "student"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for size, pictures in ours.teacher.items():
        np.testing.assert_array_equal(pictures, theirs.teacher[size])


@functools.partial(jax.jit, static_argnames="policy")
def pair(key: jax.Array, policy: str, ratio: jax.Array) -> tuple[views.View, views.View]:
    """The two views of a training step."""
    return views.pair(key, views.policy(policy), BATCH, image_aspect=ratio, whole=0.2)


@pytest.mark.parametrize("policy", ["same/ic", "ind/ic", "ind/rc", "fix/rs", "labels/mix"])
def test_a_batch_shows_what_the_device_renders(policy: str) -> None:
    """The examples of `sampler`, in the views that the training step draws of the very same images.

    That a crop of a file is what the device renders of its pixels is tested with `decode`.
    """
    sizes = () if policy == "labels/mix" or policy.startswith("fix") else (SIZE, 32)
    source = Photos()
    for batch in take(2, policy=policy, teacher_sizes=sizes, start_step=3, whole=0.2):
        indices = sampler.batch_indices(5, batch.step, BATCH, COUNT)
        np.testing.assert_array_equal(batch.labels, indices % 10)
        assert batch.labels.dtype == np.int32
        images = [decode.decode(source.encoded(int(index)).image) for index in indices]
        ratio = np.array([image.shape[1] / image.shape[0] for image in images], np.float32)
        key = jax.random.fold_in(step.view_key(5), batch.step)
        drawn = pair(key, policy, ratio)
        shown = [(batch.student, drawn[1], SIZE)] + [(batch.teacher[size], drawn[0], size) for size in sizes]
        for pictures, view, size in shown:
            assert pictures.dtype == np.uint8 and pictures.shape == (BATCH, size, size, 3)
            box, flip = np.asarray(view.box), np.asarray(view.flip)
            for place, image in enumerate(images):
                (expected,) = decode.crops(image, [decode.Look(box[place], bool(flip[place]), size)])
                assert np.abs(pictures[place].astype(int) - expected).max() <= 1


def test_a_shared_view_is_decoded_once_and_an_independent_one_is_another() -> None:
    """With one view and one size teacher and student are given the same array, and not a copy."""
    (same,) = take(1, policy="same/ic", teacher_sizes=(SIZE,))
    assert same.teacher[SIZE] is same.student
    (independent,) = take(1, policy="ind/ic", teacher_sizes=(SIZE,))
    np.testing.assert_array_equal(independent.student, same.student)
    assert (np.abs(independent.teacher[SIZE].astype(int) - same.student).reshape(BATCH, -1).max(axis=1) > 20).all()
    assert take(1, policy="labels")[0].teacher == {}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told of broken images."""
    told: list[str] = []
    monkeypatch.setattr(stream.logger, "warning", lambda text, what: told.append(text % what))
    return told


def test_workers_change_nothing_but_the_speed(lines: list[str]) -> None:
    """Two of them, from the middle on, with broken images: the same batches and report. They end with the stream."""
    source = Photos(broken=(3, 4), cut=(20,))
    options = {"seed": 5, "batch_size": BATCH, "student_size": SIZE, "start_step": 2}
    options |= {"teacher_sizes": (16,), "policy": "ind/ic"}
    alone = take(6, source, **options)
    before = running()
    found = stream.batches(source, workers=2, **options)
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
    found = stream.batches(Photos(), seed=0, batch_size=BATCH, student_size=SIZE, workers=2)
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
    first, second = take(2, Photos(count=BATCH))
    (other,) = take(1, Photos(count=BATCH), seed=6)
    for batch in (second, other):
        order = [list(batch.labels).index(label) for label in first.labels]
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
    shares = [take(1, batch_size=10, rows=slice(start, start + 5))[0] for start in (0, 5)]
    assert [len(share.labels) for share in shares] == [5, 5]
    np.testing.assert_array_equal(np.concatenate([share.labels for share in shares]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([share.student for share in shares]), whole.student)


@pytest.mark.parametrize("kind", ["broken", "cut"])
def test_a_broken_image_is_told_once_and_the_next_one_is_shown(kind: str, lines: list[str]) -> None:
    """With file name and index; 36 and 0 are neighbours. It is counted, and the others are as they were."""
    source = Photos(**{kind: (36, 0, 7)})
    options = {"seed": 5, "batch_size": COUNT, "student_size": SIZE, "workers": 0}
    bad: dict[int, str] = {}
    batches = list(itertools.islice(stream.batches(source, bad=bad, **options), 3))
    assert bad == {index: f"photo_{index}.jpg" for index in (36, 0, 7)}
    assert len(lines) == 3 and "image 7, photo_7.jpg, cannot be decoded (" in "\n".join(lines)
    for batch, good in zip(batches, take(3, batch_size=COUNT), strict=True):
        indices = sampler.batch_indices(5, batch.step, COUNT, COUNT)
        wanted = np.select([indices == 36, indices == 0, indices == 7], [1, 1, 8], indices)
        np.testing.assert_array_equal(batch.labels, wanted % 10)
        kept = wanted == indices
        np.testing.assert_array_equal(batch.student[kept], good.student[kept])
        assert (batch.student[~kept] != good.student[~kept]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_can_stop_the_run(workers: int) -> None:
    """One line that says which and what to do."""
    with pytest.raises(DistillError, match="image 7, photo_7.jpg, cannot be decoded.*on_bad_image") as caught:
        take(5, Photos(broken=(7,)), on_bad_image="raise", workers=workers)
    assert "\n" not in str(caught.value)


def test_where_nothing_can_be_decoded_the_run_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than search for ever; threads tell it as well."""
    for workers in (0, 2):
        with pytest.raises(DistillError, match="none of 37 images up to .* can be decoded"):
            take(1, Photos(broken=tuple(range(COUNT))), workers=workers)
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

    (batch,) = take(1, Grey(), channels=1)
    assert batch.student.shape == (BATCH, SIZE, SIZE, 1)
    np.testing.assert_array_equal(batch.student[:, 0, 0, 0], sampler.batch_indices(5, 0, BATCH, COUNT))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "same/xx"}, "unknown policy 'same/xx'"),
        ({"on_bad_image": "skip"}, "unknown on_bad_image 'skip'.*Valid: substitute, raise"),
        ({"batch_size": 38}, "a batch of 38 cannot be taken from 37 examples"),
        ({"start_step": -1}, "step -1 is negative"),
        ({"workers": -1}, "workers must not be negative, got -1"),
    ],
)
def test_bad_input_is_told_at_once(options: dict, message: str) -> None:
    """Before a thread is started."""
    usual = {"seed": 0, "batch_size": BATCH, "student_size": SIZE}
    with pytest.raises(DistillError, match=message):
        stream.batches(Photos(), **(usual | options))


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_memory_stays_flat_over_an_epoch() -> None:
    """4,000 images, of which decoded ones would take 55 MB: nothing is kept of what was shown."""
    source = Photos(count=4000)
    options = {"seed": 0, "batch_size": 100, "student_size": 64, "workers": 0}
    held = []
    for batch in itertools.islice(stream.batches(source, **options), 40):
        del batch
        gc.collect(0)
        held.append(resident())
    assert max(held[10:]) - held[9] < 8 * 2**20, [size // 2**20 for size in held]
