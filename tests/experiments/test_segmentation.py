"""Scenes and their segmentation: maps move with crops, scenes are the same each time, and runs leave records."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import segmentation
import segmentation_training
from kills import killed_after

from distill_lib import experiments, records, train, views
from distill_lib.errors import DistillError
from distill_lib.experiments import running
from distill_lib.views import View

SIDE = 16


def pixelwise(images: jax.Array) -> jax.Array:
    """A network whose answer about a pixel depends on that pixel alone."""
    return jnp.concatenate([jnp.tanh(3 * images), images**2, -images], axis=-1)


def noise(count: int) -> jax.Array:
    """Scenes without any smoothness, in which a shift by a pixel shows."""
    return jax.random.uniform(jax.random.key(1), (count, segmentation.CANVAS, segmentation.CANVAS, 1), minval=-1)


def exact(corners: list[tuple[int, int]], flips: list[bool]) -> View:
    """Crops of SIDE whole pixels, which are shown as they are."""
    box = jnp.array([[top, left, SIDE, SIDE] for top, left in corners], jnp.float32) / segmentation.CANVAS
    return View(box, jnp.array(flips))


def test_moved_logits_are_those_of_the_moved_scene() -> None:
    """For a pixelwise network a teacher of the whole scene says of a crop what one that sees the crop says."""
    scenes, crop = noise(3), exact([(0, 0), (40, 40), (7, 31)], [False, True, True])
    maps, reach = segmentation.moved(pixelwise(scenes), views.still(3), crop, SIDE)
    np.testing.assert_allclose(maps, pixelwise(views.render(scenes, crop, SIDE)), atol=1e-4)
    assert reach.min() == 1


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
def test_a_map_of_another_crop_reaches_as_far_as_both_overlap(flips: tuple[bool, bool]) -> None:
    scenes = noise(1)
    seen, shown = exact([(8, 4)], [flips[0]]), exact([(12, 14)], [flips[1]])
    maps, reach = segmentation.moved(pixelwise(views.render(scenes, seen, SIDE)), seen, shown, SIDE)
    expected = np.zeros((SIDE, SIDE))
    expected[:12, :6] = 1  # rows 12 to 24 and columns 14 to 20 of the scene
    np.testing.assert_array_equal(reach[0], expected[:, ::-1] if flips[1] else expected)
    within = np.asarray(reach, bool)
    np.testing.assert_allclose(maps[within], pixelwise(views.render(scenes, shown, SIDE))[within], atol=1e-4)


@pytest.mark.parametrize("policy", segmentation.POLICIES)
def test_a_teacher_that_knows_every_pixel_says_the_same_under_every_policy(policy: str) -> None:
    """Interpolation does not change what is linear in the pixels; what is left between policies is the network's."""
    linear = lambda images: jnp.concatenate([images, 1 - images], axis=-1)  # noqa: E731
    (recipe,) = segmentation.plan("short", [0], [policy])
    smooth = jax.image.resize(noise(4)[:, :7, :7], (4, segmentation.CANVAS, segmentation.CANVAS, 1), "cubic")
    shown, wanted, weight = segmentation.targets(recipe, jax.random.key(5), smooth, linear(smooth), linear)
    inner = np.s_[:, 2:-2, 2:-2]  # crops end at their border, and whole scenes go on
    distance = np.abs(wanted - linear(shown)).max(-1) * weight
    assert distance[inner].max() < 0.1 and weight.mean() > 0.2


def test_mixed_scenes_are_what_the_teacher_is_asked_about() -> None:
    (recipe,) = segmentation.plan("short", [0], ["mix"])
    asked: list[jax.Array] = []
    shown, wanted, _ = segmentation.targets(
        recipe, jax.random.key(0), noise(4), jnp.zeros(()), lambda images: asked.append(images) or pixelwise(images)
    )
    assert asked[0] is shown
    np.testing.assert_array_equal(wanted, pixelwise(shown))
    (unmixed,) = segmentation.plan("short", [0], ["same/ic"])
    alone, *_ = segmentation.targets(unmixed, jax.random.key(0), noise(4), jnp.zeros(()), pixelwise)
    assert np.abs(shown - alone).max() > 0.1


def test_scenes_are_the_same_each_time_and_of_their_own_split() -> None:
    scenes = segmentation.scenes("train", 6)
    again = segmentation.scenes.__wrapped__("train", 6)
    for first, second in zip(scenes, again, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(scenes.images, segmentation.scenes("test", 6).images)


def test_the_truth_of_a_scene_is_background_where_it_is_dark() -> None:
    scenes = segmentation.scenes("train", 20)
    background = scenes.truth == segmentation.CLASSES - 1
    np.testing.assert_array_equal(background, scenes.images[..., 0] < segmentation.BRIGHT)
    assert set(np.unique(scenes.truth)) == set(range(segmentation.CLASSES))


def test_scores_count_pixels_and_classes() -> None:
    truth = np.array([[[0, 0, 0, 1]]])
    said = np.eye(segmentation.CLASSES, dtype=np.float32)[[[[0, 0, 1, 1]]]]
    scores = segmentation_training.scores(said, truth, said)
    assert scores["top1"] == 0.75 and scores["agreement"] == 1 and scores["kl"] == 0
    assert scores["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"variant": "longest"}, "unknown variant 'longest'"),
        ({"policies": ["same"]}, "unknown policy 'same'"),
        ({"dataset": "pets"}, "unknown dataset 'pets'"),
        ({"seeds": []}, "name at least one seed"),
    ],
)
def test_a_plan_of_what_there_is_not_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(DistillError, match=problem):
        segmentation.plan(**given)


@pytest.mark.slow
def test_finished_students_leave_records_that_are_read_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = segmentation.plan("smoke", [0], ["labels", "fix/rs"])
    assert set(experiments.select(segmentation_training.run(plan, tmp_path), plan)["policy"]) == {"labels", "fix/rs"}
    monkeypatch.setattr(train, "sweep", lambda *_, **__: pytest.fail("it was trained already"))
    runs = segmentation_training.run(plan, tmp_path)
    assert {"test_agreement", "test_kl", "test_miou", "crops_agreement"} <= set(runs.dropna(axis=1)) and runs[
        "mock"
    ].all()
    pictures = segmentation_training.pictures(runs, tmp_path)["fix/rs"]
    assert pictures.shape == (segmentation_training.PICTURED, segmentation.CANVAS, segmentation.CANVAS)
    assert records.read(tmp_path).empty
    monkeypatch.setenv(running.READ_ONLY, "1")
    assert experiments.select(
        segmentation_training.run(segmentation.plan("short"), tmp_path), segmentation.plan("short")
    ).empty


def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    """From the checkpoint after its second step, of four."""
    (recipe,) = segmentation.plan("smoke", [0], ["fix/rs"])
    with killed_after(saves=2):
        segmentation_training.run([recipe], tmp_path / "killed", checkpoint_seconds=0)
    killed, unbroken = (segmentation_training.run([recipe], tmp_path / name).iloc[0] for name in ("killed", "unbroken"))
    assert (killed["resumed"], unbroken["resumed"]) == (1, 0)
    folder = Path(killed["study"]) / killed["run_id"]
    for name in ("student.npz", "metrics.csv", segmentation_training.MAPS):
        one, other = (tmp_path / run / folder / name for run in ("killed", "unbroken"))
        assert one.read_bytes() == other.read_bytes()
    measured = [name for name in killed.index if name.startswith(("test_", "crops_", "train_loss"))]
    assert len(measured) == 13 and killed[measured].equals(unbroken[measured])


def test_a_run_that_was_begun_with_other_code_of_the_chapter_is_not_taken_up_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's digest knows nothing of files beside a notebook; once finished, a run is read whatever they say."""
    (recipe,) = segmentation.plan("smoke", [0], ["fix/rs"])
    run_id, begun = segmentation_training.prepare(recipe).run_id, f"{records.code()} {segmentation_training.CODE}"
    with killed_after(saves=2):
        segmentation_training.run([recipe], tmp_path, checkpoint_seconds=0)
    edited = tmp_path / "edited.py"
    edited.write_text(f"{Path(segmentation_training.__file__).read_text(encoding='utf-8')}# and more", encoding="utf-8")
    monkeypatch.setattr(segmentation_training, "CODE", runpy.run_path(str(edited))["CODE"])
    now = f"{records.code()} {segmentation_training.CODE}"
    with pytest.raises(DistillError, match=f"begun otherwise .code was '{begun}' and is '{now}'"):
        segmentation_training.run([recipe], tmp_path)
    run = segmentation_training.run([recipe], tmp_path, resume_changed=True).iloc[0]
    assert (run["run_id"], run["code"]) == (run_id, now) and run["code"] != begun
    monkeypatch.undo()
    (finished,) = train.finished(train.sweep([recipe], tmp_path, make=segmentation_training.prepare))
    assert finished.reused
