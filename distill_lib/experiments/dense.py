"""Segmentation of scenes of the embedded photographs: a dense student learns from a dense teacher, without labels.

Views, losses and optimiser are the library's own. The loop is not: targets are maps, which move with the crop, and a
sweep of whole classes has no place for that. It is short, and a run that is stopped begins anew.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from distill_lib import datasets, losses, models, optim, records, sharding, views, weights
from distill_lib.errors import logger
from distill_lib.evaluation import metrics
from distill_lib.experiments.running import READ_ONLY
from distill_lib.input_pipeline import sampler
from distill_lib.models.bit import RootBlock, Stage
from distill_lib.models.layers import GroupNorm
from distill_lib.recipes import Recipe
from distill_lib.views import View

if TYPE_CHECKING:
    import pandas as pd

CANVAS, VIEW = 56, 32  # sides in pixels of a scene, and of the crops that students are shown
PHOTOGRAPHS = (3, 5)  # in a scene, at least and at most
BRIGHT = 32  # grey from which on a pixel is part of an item; others are background, the last class
CLASSES = 11
SCENES = {"train": 1_020, "validation": 250, "test": 500, "teacher": 8_000}
TEACHER = Path(__file__).parents[1] / "data" / "teachers" / "scenes.npz"
PICTURED = 4  # test scenes whose segmentation is kept beside a record, in `maps.png`
POLICIES = {
    "labels": "labels",
    "fix/rs": "fixed teacher, map moved along",
    "ind/ic": "independent crops, map moved along",
    "same/ic": "consistent teaching",
    "mix": "function matching",
}
"""What is compared, in words. A teacher's crop is that of `views.POLICIES`; every student is shown inception crops."""
LENGTHS = {"short": 16.0, "long": 64.0}  # epochs
_STUDENT, _TEACHER = "dense_w8", "dense_w16"
_SMOKE: dict[str, Any] = {"epochs": 1, "batch_size": 8, "warmup_steps": 1, "evaluations": 2}


Ask = Callable[[jax.Array], jax.Array]
State = tuple[models.Variables, Any, jax.Array]  # parameters, state of the optimiser, loss since the last report


class Scenes(NamedTuple):
    """Photographs in one picture."""

    images: np.ndarray  #: uint8 (n, CANVAS, CANVAS, 1)
    truth: np.ndarray  #: int32 (n, CANVAS, CANVAS), the class of each pixel


class Dense(nn.Module):
    """A BiT without a mean over the image: units at a half and a quarter of the resolution, whose logits are added."""

    width: int
    classes: int = CLASSES
    units: tuple[int, int] = (1, 2)

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps images (batch, height, width, channels), sides multiples of 4, to logits of each pixel."""
        x, logits = RootBlock(self.width, 5, 2, False, False, name="root_block")(images), jnp.zeros(())
        for index, units in enumerate(self.units):
            x = Stage(units, self.width * 2**index, index + 1, 8, False, name=f"block{index + 1}")(x)
            features = nn.relu(GroupNorm(8, name=f"norm{index + 1}")(x))
            own = nn.Dense(self.classes, kernel_init=nn.initializers.zeros, name=f"head{index + 1}")(features)
            logits = logits + jax.image.resize(own, (*images.shape[:3], self.classes), "linear")
        return logits


@functools.cache
def scenes(split: str, count: int, *, mock: bool = False) -> Scenes:
    """The first `count` scenes of a split of `SCENES`, the same ones each time; "teacher" wants the original files."""
    name = "fashion_teacher" if split == "teacher" else "fashion"
    photographs = datasets.arrays(name, "train" if split == "teacher" else split, mock=mock)
    side = photographs.images.shape[1]
    images = np.zeros((count, CANVAS, CANVAS), np.uint8)
    truth = np.full(images.shape, CLASSES - 1, np.int32)
    for scene, (image, classes) in enumerate(zip(images, truth, strict=True)):
        draw = np.random.default_rng([list(SCENES).index(split), scene])
        for number in draw.integers(len(photographs.labels), size=draw.integers(PHOTOGRAPHS[0], PHOTOGRAPHS[1] + 1)):
            top, left = draw.integers(CANVAS - side + 1, size=2)
            place = np.s_[top : top + side, left : left + side]
            photograph = photographs.images[number, ..., 0]
            above = photograph > np.maximum(image[place], BRIGHT - 1)
            classes[place][above] = photographs.labels[number]
            image[place] = np.maximum(image[place], photograph)
    return Scenes(images[..., None], truth)


def cropped(whole: Scenes, recipe: Recipe) -> Scenes:
    """A crop of each scene, as students are shown them: float32 images, and the likeliest class of each pixel."""
    view = views.sample(jax.random.key(0), len(whole.images), area=recipe.crop_area)
    truth = views.render(jax.nn.one_hot(whole.truth, CLASSES), view, VIEW).argmax(-1)
    return Scenes(np.asarray(views.render(whole.images, view, VIEW)), np.asarray(truth))


def plan(
    variant: str | None = None, seeds: Sequence[int] = (0, 1, 2), policies: Sequence[str] = tuple(POLICIES)
) -> list[Recipe]:
    """A recipe for each length, or the one of `LENGTHS` or "smoke", policy and seed; seeds share their views."""
    usual: dict[str, Any] = {"dataset": "scenes", "student": _STUDENT, "teacher": "scenes", "resolution": VIEW}
    usual |= {"batch_size": 16, "temperature": 1, "learning_rate": 0.01, "weight_decay": 1e-4, "warmup_steps": 100}
    usual |= {"crop_area": (0.25, 1), "evaluations": 10, "view_seed": seeds[0]}
    recipes = []
    for length, policy, seed in itertools.product([variant] if variant else LENGTHS, policies, seeds):
        changes = _SMOKE if length == "smoke" else {"epochs": LENGTHS[length]}
        recipes.append(Recipe(**usual | changes, variant=length, policy=policy, seed=seed))
    return recipes


def teacher_recipe() -> Recipe:
    """How `TEACHER` was made: from labels, with the teacher's own photographs."""
    (recipe,) = plan("long", [0], ["labels"])
    return dataclasses.replace(recipe, variant="teacher", student=_TEACHER, epochs=10, evaluations=5, view_seed=None)


def network(name: str) -> Dense:
    """The network of a recipe's student, such as "dense_w8"."""
    return Dense(int(name.removeprefix("dense_w")))


def teacher() -> Ask:
    """The embedded dense teacher: images (batch, height, width, 1), uint8 or in [-1, 1], to logits as `Dense`."""
    variables, asked = weights.unpack(weights.load_npz(TEACHER)), network(_TEACHER)
    return jax.jit(lambda images: models.logits(asked, variables, views.normalize(images)))


def moved(maps: jax.Array, seen: View, shown: View, size: int) -> tuple[jax.Array, jax.Array]:
    """Moves maps of a view that a teacher has seen to the view that a student is shown, bilinearly.

    Maps (batch, height, width, classes) become (batch, size, size, classes), and beside them comes where they reach,
    (batch, size, size) of 0 and 1: of another crop nothing is known outside of it.
    """

    def move(values: jax.Array, turned: jax.Array, box: jax.Array, mirrored: jax.Array) -> jax.Array:
        sides = jnp.asarray(values.shape[:2])
        values = jnp.where(turned, values[:, ::-1], values)
        scale = size / (box[2:] * sides)
        shape = (size, size, values.shape[-1])
        values = jax.image.scale_and_translate(
            values, shape, (0, 1), scale, -box[:2] * sides * scale, "linear", antialias=False
        )
        return jnp.where(mirrored, values[:, ::-1], values)

    corner, extent = (shown.box[:, :2] - seen.box[:, :2]) / seen.box[:, 2:], shown.box[:, 2:] / seen.box[:, 2:]
    views_of = (seen.flip, jnp.concatenate([corner, extent], axis=-1), shown.flip)
    reach = jax.vmap(move)(jnp.ones((*maps.shape[:3], 1)), *views_of)[..., 0]
    return jax.vmap(move)(maps, *views_of), (reach > 0.5).astype(jnp.float32)


def targets(
    recipe: Recipe, key: jax.Array, images: jax.Array, known: jax.Array, ask: Ask | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a student is shown of scenes (batch, CANVAS, CANVAS, 1), its targets, and a weight for each pixel.

    `known` are the truth's one-hot maps for labels, and a fixed teacher's logits for it; others are asked.
    """
    policy = views.policy(recipe.policy)
    options: dict[str, Any] = {"area": recipe.crop_area, "mixup": recipe.mixup if policy.mix else None}
    shown = seen = views.sample(key, len(images), **options)
    pixels = views.render(images, shown, VIEW)
    if policy.relation == "none":
        return pixels, views.render(known, shown, VIEW), jnp.ones(pixels.shape[:3])
    if policy.relation == "fixed":
        return pixels, *moved(known, views.still(len(images)), shown, VIEW)
    assert ask is not None
    if policy.relation == "same":
        return pixels, ask(pixels), jnp.ones(pixels.shape[:3])
    seen = views.sample(jax.random.fold_in(key, 0), len(images), **options)
    return pixels, *moved(ask(views.render(images, seen, VIEW)), seen, shown, VIEW)


def run(recipes: Sequence[Recipe], results: weights.File | None = None) -> pd.DataFrame:
    """Trains what a plan lacks, seeds of one policy and length together; only reads where `DISTILL_READ_ONLY` is set.

    Returns all records of the results folder, as `records.read`. DistillError where data or records are not usable.
    """
    mock, folder = any(recipe.variant == "smoke" for recipe in recipes), records.find_results(results)
    if not os.environ.get(READ_ONLY):
        sharding.use_compilation_cache()
        records.commit()  # of the code that trains: it may be another one by the end
        absent = [recipe for recipe in recipes if records.load(_place(folder, recipe)) is None]
        for _, group in itertools.groupby(absent, lambda recipe: (recipe.policy, recipe.epochs)):
            _train(list(group), folder, mock)
    return records.read(results, mock=mock)


def select(runs: pd.DataFrame, recipes: Sequence[Recipe]) -> pd.DataFrame:
    """The rows of `records.read` that are of a plan."""
    return runs[runs["run_id"].isin([_place(Path(), recipe).name for recipe in recipes])]


def pictures(runs: pd.DataFrame, results: weights.File | None = None) -> dict[str, np.ndarray]:
    """By policy, how the first of its runs segments the first test scenes: classes (`PICTURED`, CANVAS, CANVAS)."""
    first = runs.drop_duplicates("policy").set_index("policy")
    paths = records.find_results(results) / first["study"] / first["run_id"] / "maps.png"
    return {policy: np.stack(np.split(np.asarray(Image.open(path)), PICTURED)) for policy, path in paths.items()}


def scores(logits: np.ndarray, truth: np.ndarray, expected: np.ndarray | None = None) -> dict[str, float]:
    """As `metrics.metrics`, over pixels, and `miou`, the mean over classes of intersection by union with the truth.

    Logits (n, height, width, classes) of a network, and `expected` of its teacher; truth is (n, height, width).
    """
    flat = (None if each is None else each.reshape(-1, CLASSES) for each in (logits, expected))
    said, labels = next(flat), truth.reshape(-1)
    assert said is not None
    counts = np.bincount(labels * CLASSES + said.argmax(-1), minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    return metrics.metrics(said, labels, next(flat)) | {"miou": float((np.diag(counts) / union)[union > 0].mean())}


def _place(folder: Path, recipe: Recipe) -> Path:
    return folder / recipe.study / recipe.run_id(weights.sha256(TEACHER) if recipe.has_teacher else "")


def _train(group: Sequence[Recipe], folder: Path, mock: bool) -> None:
    """Teaches students of one policy and length together, and writes the record of each."""
    lead, began, ask = group[0], time.perf_counter(), teacher() if group[0].has_teacher else None
    splits = {"train": "teacher" if lead.variant == "teacher" else "train", "validation": "validation", "test": "test"}
    data = {split: scenes(name, 32 if mock else SCENES[name], mock=mock) for split, name in splits.items()}
    data["crops"] = cropped(data["test"], lead)
    images, net, rows = data["train"].images, network(lead.student), [list[records.Row]() for _ in group]
    total, fixed = lead.steps(len(images)), views.policy(lead.policy).relation == "fixed"
    expected = {
        split: _answers(ask, each.images) for split, each in data.items() if ask and (fixed or split != "train")
    }
    learn, states = _learner(lead, ask), [_initial(recipe, net) for recipe in group]
    reports = {round(total * (number + 1) / lead.evaluations) for number in range(lead.evaluations)}
    batches = sampler.batches(len(images), seed=lead.order_seed, batch_size=lead.batch_size, start_step=0)
    for step, indices in enumerate(itertools.islice(batches, total), 1):
        known = expected["train"][indices] if fixed else None
        known = known if ask else np.eye(CLASSES, dtype=np.float32)[data["train"].truth[indices]]
        states = learn(states, jax.random.fold_in(jax.random.key(lead.order_seed), step), images[indices], known, total)
        if step not in reports:
            continue
        for own, (params, _, loss) in zip(rows, states, strict=True):
            row = {"step": step, "epoch": step * lead.batch_size / len(images)}
            row["loss"] = float(loss) / (step - (own[-1]["step"] if own else 0))
            own.append(row | _judged(net, params, "validation", data, expected)[0])
        states = [(params, optimizer, jnp.zeros(())) for params, optimizer, _ in states]
        logger.info("%s %s: step %d/%d, loss %.3f", lead.study, lead.policy, step, total, rows[0][-1]["loss"])
    seconds = time.perf_counter() - began
    for recipe, own, (params, *_) in zip(group, rows, states, strict=True):
        result, maps = _judged(net, params, "test", data, expected)
        result |= _judged(net, params, "crops", data, expected)[0] | {"train_loss": own[-1]["loss"]}
        _write(_place(folder, recipe), recipe, result, own, (total, seconds, len(group)), data, maps)
        tree = weights.pack({"params": jax.device_get(params)})
        weights.save_npz(_place(folder, recipe) / "student.npz", tree, {"model": recipe.student})


def _initial(recipe: Recipe, net: Dense) -> State:
    params = models.init(net, jax.random.fold_in(jax.random.key(recipe.seed), 0), (VIEW, VIEW, 1))["params"]
    return params, _optimizer(recipe, 1).init(params), jnp.zeros(())


def _optimizer(recipe: Recipe, total: jax.Array | int) -> optax.GradientTransformation:
    numbers = (recipe.optimizer, recipe.learning_rate, recipe.weight_decay)
    return optim.create(*numbers, total_steps=total, warmup_steps=recipe.warmup_steps)


def _learner(recipe: Recipe, ask: Ask | None) -> Callable[..., list[State]]:
    """A step of all students, jitted: views are drawn and the teacher is asked once."""
    net = network(recipe.student)

    @functools.partial(jax.jit, donate_argnums=0)
    def learn(states: list[State], key: jax.Array, images: jax.Array, known: Any, total: jax.Array) -> list[State]:
        shown, wanted, weight = targets(recipe, key, images, known, ask)

        def loss(params: models.Variables) -> jax.Array:
            logits = models.logits(net, {"params": params}, shown)
            each = losses.kl(logits, wanted) if ask else losses.cross_entropy(logits, wanted)
            return (weight * each).sum() / jnp.maximum(weight.sum(), 1)

        moved_on = []
        for params, before, total_loss in states:
            value, gradients = jax.value_and_grad(loss)(params)
            updates, after = _optimizer(recipe, total).update(gradients, before, params)
            moved_on.append((optax.apply_updates(params, updates), after, total_loss + value))
        return moved_on

    return learn


def _answers(ask: Ask, images: np.ndarray) -> np.ndarray:
    """Logits of whole scenes, in parts of which the last is filled up."""
    parts = sharding.in_parts(images, 50)
    return np.concatenate([np.asarray(ask(views.normalize(part))) for part in parts])[: len(images)]


def _judged(
    net: Dense, params: models.Variables, split: str, data: dict[str, Scenes], expected: dict[str, np.ndarray]
) -> tuple[records.Row, np.ndarray]:
    """Scores on the whole scenes of a split, under their names in records, and the classes of the first ones."""
    logits = _answers(functools.partial(_program(net), {"params": params}), data[split].images)
    own = scores(logits, data[split].truth, expected.get(split))
    return {f"{split}_{name}": value for name, value in own.items()}, logits[:PICTURED].argmax(-1)


@functools.cache
def _program(net: Dense) -> Callable[[models.Variables, jax.Array], jax.Array]:
    return jax.jit(functools.partial(models.logits, net))


def _write(
    place: Path,
    recipe: Recipe,
    result: records.Row,
    rows: list[records.Row],
    effort: tuple[int, float, int],
    data: dict[str, Scenes],
    maps: np.ndarray,
) -> None:
    steps, seconds, together = effort
    digest = hashlib.sha256(b"".join(each.images.tobytes() + each.truth.tobytes() for each in data.values()))
    about: records.Record = {"run_id": place.name, "study": recipe.study, "mock": recipe.variant == "smoke"}
    about["teacher"] = {"name": recipe.teacher, "sha256": weights.sha256(TEACHER)} if recipe.has_teacher else None
    about |= {"recipe": dataclasses.asdict(recipe), "result": result, "steps": steps, "resumed": 0}
    about |= {"wall_seconds": round(seconds, 2), "images_per_second": round(steps * recipe.batch_size / seconds, 1)}
    about |= {"students_per_step": together, "data": digest.hexdigest()[:16]}
    picture = io.BytesIO()
    Image.fromarray(maps.astype(np.uint8).reshape(-1, CANVAS)).save(picture, "PNG")
    weights.write_atomically(place / "maps.png", picture.getvalue())
    records.write(place, about | records.environment(), rows)
