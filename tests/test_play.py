"""The book's live figures: what their JavaScript computes is what the library computes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_lib import datasets, losses, models, recipes, records, teachers, views, weights
from distill_lib.evaluation.evaluate import evaluate
from distill_lib.figures import live

ROOT = Path(__file__).parent.parent
SCRIPTS = [ROOT / "book" / "_static" / "play" / f"{name}.js" for name in ("network", "views")]
NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium") or shutil.which("google-chrome")
RESULTS = ROOT / "results"
STUDENTS = json.loads((RESULTS / "students_f16.json").read_text())

BOX = (0.1, 0.25, 0.6, 0.7)
ANSWERS = """
const box = Object.fromEntries(["top", "left", "height", "width"].map((side, i) => [side, data.box[i]]));
const images = data.images.map(Play.network.bytes);
const crop = Play.views.render(images[0], box, true, 28);
const mixed = Play.views.mix(crop, Play.views.render(images[1], Play.views.WHOLE, false, 28), data.weight);
const logits = data.networks.map((packed) => Play.network.logits(Play.network.load(packed), mixed));
const answer = {view: Array.from(mixed), logits, kl: Play.network.kl(logits[1], logits[0])};
"""


def run_javascript(code: str, data: Any, folder: Path) -> Any:
    """What `code` calls `answer`, after the book's scripts, in node or else in a browser without a window."""
    source = "\n".join([*(path.read_text() for path in SCRIPTS), f"const data = {json.dumps(data)};", code])
    if NODE:
        path = folder / "code.js"
        path.write_text(f"{source}\nconsole.log(JSON.stringify(answer));")
        return json.loads(subprocess.run([NODE, path], check=True, capture_output=True, text=True).stdout)
    assert CHROMIUM
    path = folder / "code.html"
    write = "document.body.firstChild.textContent = JSON.stringify(answer)"
    path.write_text(f"<pre></pre><script>{source}\n{write}</script>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, path.as_uri()], check=True, capture_output=True, text=True)
    return json.loads(unescape(re.search("<pre>(.*)</pre>", done.stdout, re.DOTALL)[1]))  # type: ignore[index]


ask = jax.jit(models.logits, static_argnums=0)


def logits(name: str, tree: weights.Tree, images: jax.Array) -> jax.Array:
    """What a network of the library says, by a program that all with its name share."""
    return ask(models.create(name, 10), weights.unpack(tree), images)


def as_halves(tree: weights.Tree) -> weights.Tree:
    return weights.unflatten({name: value.astype(np.float16) for name, value in weights.flatten(tree).items()})


@pytest.mark.skipif(not (NODE or CHROMIUM), reason="neither node nor chromium is here to run JavaScript")
def test_views_and_answers_are_those_of_the_library(tmp_path: Path) -> None:
    """A crop that is mirrored and mixed with a whole image, shown to both networks."""
    networks = {"bit_r11w24": as_halves(weights.load_npz(teachers.EMBEDDED["fashion"]))}
    networks["bit_r11w8"] = weights.load_npz(RESULTS / STUDENTS[0]["file"])
    images = datasets.load("fashion", "test", limit=2).images(range(2))
    data = {"images": [live.encoded(image) for image in images], "box": BOX, "weight": 0.7}
    data |= {"networks": [live.network(tree) for tree in networks.values()]}
    answer = run_javascript(ANSWERS, data, tmp_path)
    view = views.View(jnp.asarray([BOX, (0, 0, 1, 1)]), jnp.asarray([True, False]), jnp.asarray([0.7, 1.0]))
    seen = views.render(images, view, 28)[:1]
    np.testing.assert_allclose(answer["view"], seen.ravel(), atol=1e-5)
    expected = [logits(name, tree, seen)[0] for name, tree in networks.items()]
    np.testing.assert_allclose(answer["logits"], expected, atol=1e-3)
    np.testing.assert_allclose(answer["kl"], losses.kl(expected[1], expected[0]), atol=1e-3)


def test_the_teacher_says_the_same_in_half_precision() -> None:
    tree = weights.load_npz(teachers.EMBEDDED["fashion"])
    images = views.normalize(datasets.load("fashion", "test", limit=100).images(range(100)))
    full, half = (jax.nn.softmax(logits("bit_r11w24", each, images)) for each in (tree, as_halves(tree)))
    np.testing.assert_allclose(full, half, atol=2e-3)


def test_the_index_of_students_is_that_of_the_files() -> None:
    files = {path.relative_to(RESULTS).as_posix(): path for path in RESULTS.glob("*/*/student_f16.npz")}
    assert {row["file"]: row["sha256"] for row in STUDENTS} == {name: weights.sha256(files[name]) for name in files}
    assert all(path.stat().st_size <= 80_000 and records.load(path.parent) for path in files.values())


@pytest.mark.slow
def test_a_rounded_student_is_judged_as_its_row_says() -> None:
    row = STUDENTS[0]
    assert evaluate(str(RESULTS / row["file"]), "fashion")["top1"] == pytest.approx(row["top1"], abs=1e-4)


@pytest.fixture(scope="module")
def tested() -> tuple[list[np.ndarray], np.ndarray]:
    """All test images, in parts, as students see them, and their labels."""
    data = datasets.load("fashion", "test")
    images = np.asarray(views.normalize(data.images(range(len(data)))))
    return np.split(images, 10), data.labels(range(len(data)))


@pytest.mark.slow
@pytest.mark.parametrize("row", STUDENTS, ids=lambda row: Path(row["file"]).parent.name)
def test_rounding_a_student_costs_two_test_images_at_most(
    row: dict[str, Any], tested: tuple[list[np.ndarray], np.ndarray]
) -> None:
    (parts, labels), tree = tested, weights.load_npz(RESULTS / row["file"])
    said = np.concatenate([logits("bit_r11w8", tree, part).argmax(axis=-1) for part in parts])
    assert np.mean(said == labels) == pytest.approx(row["top1"], abs=1e-4)
    assert row["top1"] == pytest.approx(row["top1_float32"], abs=2.5e-4)


@pytest.fixture(scope="module")
def losses_of_students() -> dict[tuple[str, float], dict[str, float]]:
    """Mean losses of each student under three teachers, for crops of 200 images, and on blends of two images."""
    images = datasets.load("fashion", "test", limit=200).images(range(200))
    area = recipes.get("fashion", "medium").crop_area
    own, other = (views.sample(jax.random.key(seed), 200, area=area) for seed in (1, 2))
    whole = views.still(200)
    seen = {name: views.render(images, view, 28) for name, view in (("own", own), ("other", other), ("whole", whole))}
    seen["blend"] = views.mix(seen["whole"], whole._replace(weight=jnp.full(200, 0.5)))
    together, means = jnp.concatenate(list(seen.values())), {}

    def answers(name: str, tree: weights.Tree) -> dict[str, jax.Array]:
        return dict(zip(seen, jnp.split(logits(name, tree, together), len(seen)), strict=True))

    told = answers("bit_r11w24", weights.load_npz(teachers.EMBEDDED["fashion"]))
    for row in STUDENTS:
        recipe = records.load((RESULTS / row["file"]).parent)["recipe"]  # type: ignore[index]
        said = answers("bit_r11w8", weights.load_npz(RESULTS / row["file"]))
        mean = {name: float(losses.kl(said["own"], told[name]).mean()) for name in ("own", "other", "whole")}
        mean["blend"] = float(losses.kl(said["blend"], told["blend"]).mean())
        means[recipe["policy"], recipe["epochs"]] = mean
    return means


def test_the_playground_shows_what_its_page_says(losses_of_students: dict[tuple[str, float], dict[str, float]]) -> None:
    """On average over images; a reader may meet one where it is not so."""
    means = losses_of_students
    assert all(mean["own"] < min(mean["other"], mean["whole"]) for mean in means.values())
    for epochs in {epochs for policy, epochs in means if policy == "fix/cc"}:
        same_length = {policy: mean for (policy, length), mean in means.items() if length == epochs}
        assert max(same_length, key=lambda policy: same_length[policy]["own"]) == "fix/cc"
        assert min(same_length, key=lambda policy: same_length[policy]["blend"]) == "mix"
    short, long = (means["mix", epochs] for epochs in (100.0, 1000.0))
    assert long["own"] / short["own"] < min(long[name] / short[name] for name in ("other", "whole"))


def test_a_fixed_teacher_stops_helping_early_and_patience_pays_for_the_others() -> None:
    """The caption of the figure on patience: what the last three quarters of a long schedule add."""
    curves = records.curves(RESULTS, "fashion_long")
    means = curves.groupby(["policy", "epoch"])["validation_top1"].mean().unstack("policy")
    gain = means.iloc[-1] - means[means.index < means.index[-1] / 4].iloc[-1]
    assert gain["fix/cc"] < 0.02 < 0.03 < min(gain["mix"], gain["same/ic"])
