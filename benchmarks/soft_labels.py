"""What stored answers cost and save: bytes a view, the mass that is left out, and a step without the teacher."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.students import Students, made_up
from distill_lib import losses, recipes, sharding, teachers, views
from distill_lib.datasets import package_images
from distill_lib.recipes import Recipe
from distill_lib.report.benchmarks import Rows
from distill_lib.teachers import soft_labels
from distill_lib.train import record_soft_labels, setup
from distill_lib.train.task import Task

KEPT = {"fashion": (10, 5, 3, 1), "imagenet": (1000, 300, 100, 30, 10, 3, 1), "paper": (10,)}
STEPS = 64  # of each course that is timed, and of the answers that are weighed
PAPER = (2, 4, 128)  # steps, batch and pixels of the paper's networks, whose steps take seconds
CROPS = 128  # of each photograph


def measure(rounds: int = 7) -> Rows:
    """Weighs stored answers, and times a step that replays them beside one that asks the teacher.

    Returns: for each case and number of kept logits bytes a view as they lie on disk; the mean probability of the other
    classes, and the KL from what is replayed to what the teacher said, at temperature 1; seconds a step of both.
    """
    return [*_fashion(rounds), *_imagenet(), *_paper(rounds)]


def _fashion(rounds: int) -> Rows:
    """The embedded study's networks, function matching: the first steps of the schedule `quick`."""
    recipe = recipes.get("fashion", "quick", policy="mix", epochs=STEPS * 128 / 1020)
    live = setup.prepare(recipe)
    given = zip(range(live.total_steps), live.batches(0, sharding.data_mesh()), strict=False)
    rows = weighed("Fashion, mix", [np.asarray(batch.targets) for _, batch in given], KEPT["fashion"])
    return [row | seconds for row, seconds in zip(rows, _timed(recipe, KEPT["fashion"], rounds), strict=True)]


def _paper(rounds: int) -> Rows:
    """The paper's teacher with random weights, and student, on mock images."""
    steps, batch, side = PAPER
    preset = recipes.get("imagenet", "long", batch_size=batch, resolution=side, dtype="float32")
    about = {"case": f"R152x2 to R50x1, {side} px, batch {batch}", "classes": 1000}
    with tempfile.TemporaryDirectory() as folder:
        timed = _timed(made_up(preset, Path(folder), steps=steps), KEPT["paper"], rounds)
    return [about | row for row in timed]


def _imagenet() -> Rows:
    """The ImageNet teacher that comes along, on inception crops of photographs; nothing is timed."""
    teacher = teachers.load("imagenet_lite0", num_classes=1000, channels=3, resolution=224)

    @jax.jit
    def ask(image: Any, key: Any) -> Any:
        images = jnp.broadcast_to(image, (16, *image.shape))
        view = views.sample(key, len(images), image_aspect=views.aspect(images))
        return teacher.logits(views.render(images, view, 224))

    keys = jax.random.split(jax.random.key(0), CROPS // 16)
    answers = [np.asarray(ask(package_images.load(name), key)) for name in package_images.FILES for key in keys]
    return weighed("ImageNet, crops", answers, KEPT["imagenet"])


def _timed(recipe: Recipe, several: tuple[int, ...], rounds: int) -> Rows:
    """Seconds a step of a recipe whose teacher is asked, and of replays of its answers: a row for each number kept."""
    live = setup.prepare(recipe)
    with tempfile.TemporaryDirectory() as place:
        courses = {"live": _course(live)}
        for kept in several:
            record_soft_labels.store(recipe, Path(place, str(kept)), kept)
            courses[str(kept)] = _course(setup.prepare(recipe, [live], replay=Path(place, str(kept))))
        spent = timing.interleaved(courses, rounds=rounds, steps=live.total_steps)
    step = spent.pop("live")
    return [
        {"kept": int(kept), "live step": step, "replayed step": replayed, "speed-up": step.median / replayed.median}
        for kept, replayed in spent.items()
    ]


def _course(task: Task) -> Callable[[], None]:
    def run() -> None:
        for shard in task.store.folder.glob("*.npz") if task.store else ():
            shard.touch()  # so that it is read from the disk again
        Students(task).run(task.total_steps)

    return run


def weighed(case: str, logits: list[np.ndarray], several: tuple[int, ...]) -> Rows:
    """Bytes, lost mass and divergence of a teacher's logits (batch, classes) a step, for each number that is kept."""
    batch, classes = logits[0].shape
    every, rows = np.concatenate(logits), []
    for kept in several:
        answers = [jax.device_get(soft_labels.keep(each, kept)) for each in logits]
        with tempfile.TemporaryDirectory() as folder:
            begun = soft_labels.begin(folder, {}, kept, steps=len(answers), num_classes=classes, batch_size=batch)
            size = begun.add(answers, np.zeros(batch, np.float32)).bytes_per_view
        back = np.concatenate([soft_labels.restore(each, classes) for each in answers])
        mass = np.sort(np.asarray(jax.nn.softmax(every)), axis=-1)[:, : classes - kept].sum(axis=-1).mean()
        divergence = float(losses.kl(jnp.asarray(back), jnp.asarray(every)).mean())
        row = {"case": case, "classes": classes, "kept": kept, "bytes a view": round(size, 1 if size < 100 else None)}
        rows.append(row | {"rest of the mass": float(mass), "KL to the live answer": divergence})
    return rows
