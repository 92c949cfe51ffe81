"""The book's live figures: what their JavaScript computes is what the library computes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from distill_lib import datasets, losses, models, records, teachers, views, weights
from distill_lib.figures import live

ROOT = Path(__file__).parent.parent
SCRIPTS = [ROOT / "book" / "_static" / "play" / f"{name}.js" for name in ("network", "views")]
NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not (NODE or CHROMIUM), reason="neither node nor chromium is here to run JavaScript")

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
    path.write_text(f"<pre></pre><script>{source}\ndocument.body.firstChild.textContent = JSON.stringify(answer)</script>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, path.as_uri()], check=True, capture_output=True, text=True)
    return json.loads(unescape(re.search("<pre>(.*)</pre>", done.stdout, re.DOTALL)[1]))  # type: ignore[index]


def as_halves(tree: weights.Tree) -> weights.Tree:
    return weights.unflatten({name: value.astype(np.float16) for name, value in weights.flatten(tree).items()})


def test_views_and_answers_are_those_of_the_library(tmp_path: Path) -> None:
    """A crop that is mirrored and mixed with a whole image, shown to both networks."""
    teacher = as_halves(weights.load_npz(teachers.EMBEDDED["fashion"]))
    model = models.create("bit_r11w8", 10)
    drawn = models.init(model, teachers.teacher.jax.random.key(0), (28, 28, 1))["params"]
    student = as_halves(drawn)
    images = datasets.load("fashion", "test", limit=2).images(range(2))
    data = {"images": [live.encoded(image) for image in images], "box": BOX, "weight": 0.7}
    data |= {"networks": [live.network(tree) for tree in (teacher, student)]}
    answer = run_javascript(ANSWERS, data, tmp_path)
    view = views.View(jnp.asarray([BOX, (0, 0, 1, 1)]), jnp.asarray([True, False]), jnp.asarray([0.7, 1.0]))
    seen = views.render(images, view, 28)[:1]
    np.testing.assert_allclose(answer["view"], seen.ravel(), atol=1e-5)
    networks = [(models.create("bit_r11w24", 10), teacher), (model, student)]
    logits = [models.logits(each, weights.unpack(tree), seen)[0] for each, tree in networks]
    np.testing.assert_allclose(answer["logits"], logits, atol=1e-3)
    np.testing.assert_allclose(answer["kl"], losses.kl(logits[1], logits[0]), atol=1e-3)
