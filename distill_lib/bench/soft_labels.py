"""What stored answers cost and save: bytes a view, the mass that is left out, and a step without the teacher."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill_lib import sharding
from distill_lib.bench import timing
from distill_lib.bench.timing import Timing

CASES = ("fashion", "imagenet", "paper")
KEPT = {"fashion": (10, 5, 3, 1), "imagenet": (1000, 300, 100, 30, 10, 3, 1)}
STEPS = 64  # of each course that is timed, and of the answers that are weighed
CROPS = 128  # of each photograph
BLANK = {
    "case": "",
    "classes": "",
    "kept": "",
    "bytes a view": "",
    "rest of the mass": "",
    "KL to the live answer": "",
    "live step": "",
    "replayed step": "",
    "speed-up": "",
}


def measure(arguments: list[str]) -> list[dict[str, Any]]:
    """Weighs stored answers, and times a step that replays them beside one that asks the teacher.

    Args:
        arguments: `--rounds N`, `--cases NAME ...`, `--batch N` and `--side N` of the paper's networks.

    Returns:
        A row a case and number of kept logits: bytes a view as they lie on disk; the mean probability of the other
        classes, and the KL from what is replayed to what the teacher said, at temperature 1; seconds a step of both.
    """
    parser = timing.parser(measure, rounds=7)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=128)
    options = parser.parse_args(arguments)
    sharding.use_compilation_cache()  # the paper's networks take minutes to compile
    measured: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "fashion": lambda: _fashion(options.rounds),
        "imagenet": _imagenet,
        "paper": lambda: [_paper(options.rounds, options.batch, options.side)],
    }
    return [BLANK | row for case in options.cases for row in measured[case]()]


def _fashion(rounds: int) -> list[dict[str, Any]]:
    """The embedded study's networks, function matching: the first steps of the schedule `quick`."""
    import numpy as np

    from distill_lib import recipes, sharding
    from distill_lib.train import batches, record_soft_labels, setup

    recipe = recipes.get("fashion", "quick", policy="mix", epochs=STEPS * 128 / 1020)
    live = setup.prepare(recipe)
    mesh = sharding.data_mesh()
    given = zip(range(live.total_steps), batches.Lessons(live, 0, mesh), strict=False)
    rows = _weighed("Fashion, mix", [np.asarray(lesson.wanted) for _, lesson in given], KEPT["fashion"])
    with tempfile.TemporaryDirectory() as place:
        courses = {"live step": _course(live, mesh)}
        for row in rows:
            folder = Path(place) / str(row["kept"])
            record_soft_labels.store(recipe, folder, row["kept"])
            courses[str(row["kept"])] = _course(setup.prepare(recipe, like=live, replay=folder), mesh)
        seconds = {
            name: _of_each(whole, live.total_steps)
            for name, whole in timing.interleaved(courses, rounds=rounds).items()
        }
    return [row | _compared(seconds["live step"], seconds[str(row["kept"])]) for row in rows]


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


def _course(work: Any, mesh: Any) -> Callable[[], Any]:
    """All steps of a task, without reports: lessons as training gets them, and one student."""
    import jax

    from distill_lib.train import batches, step
    from distill_lib.train import state as train_state

    learn = step.learn(work.student, work.objective)

    def run() -> None:
        for shard in work.store.folder.glob("*.npz") if work.store else ():
            shard.touch()  # so that it is read from the disk again
        state = train_state.initial_state(work.student, 0, work.image_shape)
        for _, lesson in zip(range(work.total_steps), batches.Lessons(work, 0, mesh), strict=False):
            state = learn(state, work.settings, lesson)
        jax.block_until_ready(state)

    return run


def _paper(rounds: int, batch: int, side: int) -> dict[str, Any]:
    """The paper's teacher and student with random weights; what is replayed is kept in memory."""
    import jax
    import numpy as np

    from distill_lib import models
    from distill_lib.models.ensemble import Ensemble, Member
    from distill_lib.teachers import soft_labels
    from distill_lib.train import state as train_state
    from distill_lib.train import step
    from distill_lib.train.sources import Images

    classes, shape = 1000, (side, side, 3)
    model = models.create("bit_r152x2", classes)
    folded, variables = models.fold(model, models.init(model, jax.random.key(0), shape))
    student = models.create("bit_r50x1", classes)
    learn = step.learn(student)
    rate, decay, temperature = (jax.numpy.float32(value) for value in (3e-2, 3e-4, 1))
    settings = step.Settings(rate, decay, temperature, jax.numpy.int32(9), jax.numpy.int32(1))
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    source = Images(images, np.zeros(batch, np.int32))
    said = jax.device_get(soft_labels.keep(jax.random.normal(jax.random.key(1), (batch, classes)), 10))
    state = [train_state.initial_state(student, 0, shape)]

    def moves(teacher: Any, asked: Any) -> Callable[[], None]:
        plan = step.Plan("mix", teacher, classes, batch, side, "batch", (0.05, 1.0), 0.0)
        teach = step.teach(plan)

        def run() -> None:
            lesson = teach(step.view_key(0), np.int32(0), source, asked, np.float32(1))
            state[0] = jax.block_until_ready(learn(state[0], settings, lesson))

        return run

    live, replayed = moves(Ensemble((Member(folded),)), (variables,)), moves(soft_labels.Stored(classes), said)
    seconds = timing.interleaved({"live": live, "replayed": replayed}, rounds=rounds)
    case = f"R152x2 to R50x1, {side} px, batch {batch}"
    return {"case": case, "classes": classes, "kept": 10} | _compared(seconds["live"], seconds["replayed"])


def _of_each(whole: Timing, steps: int) -> Timing:
    """Seconds a step, of seconds a course."""
    parts = {name: getattr(whole, name) / steps for name in ("median", "low", "high")}
    return dataclasses.replace(whole, **parts)


def _compared(live: Timing, replayed: Timing) -> dict[str, Any]:
    return {"live step": live, "replayed step": replayed, "speed-up": live.median / replayed.median}
