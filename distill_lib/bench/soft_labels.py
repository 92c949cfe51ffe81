"""What stored answers cost and save: bytes a view, the mass that is left out, and a step without the teacher."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_lib import sharding
from distill_lib.bench import timing

if TYPE_CHECKING:
    from distill_lib.recipes import Recipe

KEPT = {"fashion": (10, 5, 3, 1), "imagenet": (1000, 300, 100, 30, 10, 3, 1), "paper": (10,)}
STEPS = 64  # of each course that is timed, and of the answers that are weighed
PAPER_STEPS = 2  # of the paper's networks, which take seconds each
CROPS = 128  # of each photograph
COLUMNS = ("case", "classes", "kept", "bytes a view", "rest of the mass", "KL to the live answer")
BLANK = dict.fromkeys((*COLUMNS, "live step", "replayed step", "speed-up"), "")


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Weighs stored answers, and times a step that replays them beside one that asks the teacher.

    `--batch` and `--side` are those of the paper's networks.

    Returns:
        A row a case and number of kept logits: bytes a view as they lie on disk; the mean probability of the other
        classes, and the KL from what is replayed to what the teacher said, at temperature 1; seconds a step of both.
    """
    options = timing.options(measure, arguments, rounds=7, cases=tuple(KEPT), batch=4, side=128)
    sharding.use_compilation_cache()  # the paper's networks take minutes to compile
    measured: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "fashion": lambda: _fashion(options.rounds),
        "imagenet": _imagenet,
        "paper": lambda: _paper(options.rounds, options.batch, options.side),
    }
    return [BLANK | row for case in options.cases for row in measured[case]()]


def _fashion(rounds: int) -> list[dict[str, Any]]:
    """The embedded study's networks, function matching: the first steps of the schedule `quick`."""
    import numpy as np

    from distill_lib import recipes
    from distill_lib.train import batches, setup

    recipe = recipes.get("fashion", "quick", policy="mix", epochs=STEPS * 128 / 1020)
    live = setup.prepare(recipe)
    given = zip(range(live.total_steps), batches.Lessons(live, 0, sharding.data_mesh()), strict=False)
    rows = _weighed("Fashion, mix", [np.asarray(lesson.wanted) for _, lesson in given], KEPT["fashion"])
    seconds = _timed(recipe, KEPT["fashion"], rounds)
    return [row | seconds[row["kept"]] for row in rows]


def _paper(rounds: int, batch: int, side: int) -> list[dict[str, Any]]:
    """The paper's teacher with random weights, and student, on mock images."""
    from distill_lib import recipes
    from distill_lib.bench import made_up

    preset = recipes.get("imagenet", "long", batch_size=batch, resolution=side)
    (kept,) = KEPT["paper"]
    with tempfile.TemporaryDirectory() as folder:
        recipe = made_up.like(preset, Path(folder), steps=PAPER_STEPS, dtype="float32")
        seconds = _timed(recipe, (kept,), rounds)[kept]
    return [{"case": f"R152x2 to R50x1, {side} px, batch {batch}", "classes": 1000, "kept": kept} | seconds]


def _timed(recipe: Recipe, several: tuple[int, ...], rounds: int) -> dict[int, dict[str, Any]]:
    """Seconds a step of a recipe whose teacher is asked, and of replays of its answers by how many are kept."""
    from distill_lib.train import record_soft_labels, setup

    live = setup.prepare(recipe)
    with tempfile.TemporaryDirectory() as place:
        courses = {"live": _course(live)}
        for kept in several:
            record_soft_labels.store(recipe, Path(place, str(kept)), kept)
            courses[str(kept)] = _course(setup.prepare(recipe, like=live, replay=Path(place, str(kept))))
        spent = timing.interleaved(courses, rounds=rounds, steps=live.total_steps)
    step = spent["live"]
    return {
        kept: {"live step": step, "replayed step": replayed, "speed-up": step.median / replayed.median}
        for kept, replayed in ((kept, spent[str(kept)]) for kept in several)
    }


def _course(work: Any) -> Callable[[], Any]:
    """All steps of a task, without reports: lessons as training gets them, and one student."""
    from distill_lib.bench.students import Students

    def run() -> None:
        for shard in work.store.folder.glob("*.npz") if work.store else ():
            shard.touch()  # so that it is read from the disk again
        Students(work).run(work.total_steps)

    return run


def _imagenet() -> list[dict[str, Any]]:
    """The ImageNet teacher that comes along, on inception crops of photographs."""
    import jax
    import numpy as np

    from distill_lib import teachers, views
    from distill_lib.datasets import package_images

    teacher = teachers.load("imagenet_lite0", num_classes=1000, colours=3, resolution=224)

    @jax.jit
    def asked(image: Any, key: Any) -> Any:
        images = jax.numpy.broadcast_to(image, (16, *image.shape))
        view = views.sample(key, len(images), image_aspect=views.aspect(images))
        return teacher.logits(views.render(images, view, 224))

    keys = jax.random.split(jax.random.key(0), CROPS // 16)
    said = [np.asarray(asked(package_images.load(name), key)) for name in package_images.FILES for key in keys]
    return _weighed("ImageNet, crops", said, KEPT["imagenet"])


def _weighed(case: str, logits: list[Any], several: tuple[int, ...]) -> list[dict[str, Any]]:
    """Bytes, lost mass and divergence of a teacher's logits (batch, classes) a step, for each number that is kept."""
    import jax
    import numpy as np

    from distill_lib import losses
    from distill_lib.teachers import soft_label_store, soft_labels

    batch, classes = logits[0].shape
    every, rows = np.concatenate(logits), []
    for kept in several:
        said = [jax.device_get(soft_labels.keep(one, kept)) for one in logits]
        with tempfile.TemporaryDirectory() as folder:
            begun = soft_label_store.begin(folder, {}, kept, steps=len(said), num_classes=classes, batch_size=batch)
            size = begun.add(said, np.zeros(batch, np.float32)).bytes_per_view
        back = np.concatenate([soft_labels.restore(one, classes) for one in said])
        mass = np.sort(np.asarray(jax.nn.softmax(every)), axis=-1)[:, : classes - kept].sum(axis=-1).mean()
        row = {"case": case, "classes": classes, "kept": kept}
        row["bytes a view"] = round(size, 1) if size < 100 else round(size)
        divergence = float(losses.kl(jax.numpy.asarray(back), jax.numpy.asarray(every)).mean())
        rows.append(row | {"rest of the mass": float(mass), "KL to the live answer": divergence})
    return rows
