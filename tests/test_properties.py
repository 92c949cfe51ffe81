"""Whatever is given, or has become of a file: it is taken, or refused by an error of ours, and never by another.

A hundred inputs each; `nox -s tests -- tests/test_properties.py --hypothesis-profile long` tries 20,000.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from faults import damage
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from distill_lib import recipes, records, teachers, weights
from distill_lib.datasets import decode, source
from distill_lib.errors import DistillError
from distill_lib.recipes import Recipe
from distill_lib.teachers import soft_labels, teacher
from distill_lib.teachers.soft_labels import SoftLabels
from distill_lib.train import checkpoint
from distill_lib.values import parse_value

FIELDS = [field.name for field in dataclasses.fields(Recipe)]
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([2**31, 2**63, 10**400, 65536, 1e-39, 1e3, -0.0, 5e-324, 1e308, 0.5, 1, 2]),
)
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["mix", "labels", "fix/cc", "fashion", "folder:.", "tfds:x", "mock", "fashion@100000", "a + b"]),
    st.sampled_from(["bit_r11w8", "vit_ti16", "float32", "kl", "shampoo", "run:a/b", "x:y", "none", "bit_r5w8@0"]),
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def taken(act: Callable[[], Any], *errors: type[Exception]) -> Any:
    """The result, or None where it is refused by one of ours in one line."""
    try:
        return act()
    except (DistillError, *errors) as error:
        assert "\n" not in str(error), str(error)
        return None


@given(
    st.sampled_from(["smoke", "quick", "long"]),
    st.dictionaries(st.sampled_from(FIELDS[2:]), VALUES, min_size=1, max_size=4),
    st.integers(1, 10**7),
)
def test_any_setting_makes_a_recipe_or_is_refused(variant: str, settings: dict[str, Any], images: int) -> None:
    """What is made has a name, a folder and a number of steps, and can be written."""
    recipe = taken(lambda: recipes.get("fashion", variant, **settings))
    if recipe is None:
        return
    assert recipe.run_id() and recipe.study
    assert taken(lambda: recipe.steps(images)) is None or recipe.steps(images) > recipe.warmup_steps
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(recipe), allow_nan=False))) == recipe


@given(VALUES.map(str) | st.text() | st.from_regex(r"!!?[a-z]+ .*|\[.*\]|\{.*\}|[-+0-9._e:]+", fullmatch=True))
def test_any_word_of_the_command_line_is_a_value(text: str) -> None:
    """A number, text or a list, and what is no setting is refused."""
    value = parse_value(text)
    assert json.dumps(value)
    taken(lambda: recipes.get("fashion", "smoke", epochs=value))
    taken(lambda: recipes.get("fashion", "smoke", student=value))


@given(WORDS | st.text(alphabet="abtfds:+@/. 019\0", max_size=30))
def test_any_name_is_known_or_refused(name: str) -> None:
    """Of data sets, teachers and presets."""
    taken(lambda: source.get(name))
    taken(lambda: teachers.parts(name))
    taken(lambda: recipes.get(name, "quick", teacher=name))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for all inputs of a test, in memory where there is such."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as path:
        yield Path(path)


@st.composite
def damages(draw: st.DrawFn, content: bytes) -> bytes:
    """The content after up to three damages, or bytes of any kind."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    for kind in draw(st.lists(st.sampled_from(damage.KINDS), min_size=1, max_size=3)):
        content = damage.damaged(content, kind, numbers) if content else content
    return content


def changed(content: Any, path: tuple[int, ...], value: Any) -> Any:
    """JSON with another value at a place, which numbers lead to."""
    if not path or not isinstance(content, dict | list) or not content:
        return value
    key: Any = path[0] % len(content)
    key = list(content)[key] if isinstance(content, dict) else key
    copy = content.copy()
    copy[key] = changed(content[key], path[1:], value)
    return copy


PLACES = st.lists(st.integers(0, 200), min_size=1, max_size=3).map(tuple)


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A made-up run."""
    record = made_up.write_run(folder, "quick", "mix", 0)
    path = folder / record["study"] / record["run_id"]
    shutil.copytree(path, folder / "before")
    return path


@given(data=st.data())
def test_any_record_is_read_or_refused(run: Path, data: st.DataObject) -> None:
    """Other values of any type in run.json, and damaged bytes of it and of metrics.csv."""
    name = data.draw(st.sampled_from(["run.json", "metrics.csv"]))
    content = (run.parents[1] / "before" / name).read_bytes()
    if name == "run.json" and data.draw(st.booleans()):
        content = json.dumps(changed(json.loads(content), data.draw(PLACES), data.draw(VALUES))).encode()
    else:
        content = data.draw(damages(content))
    (run / name).write_bytes(content)
    results = run.parents[1]
    try:
        if (frame := taken(lambda: records.read(results, mock=True))) is not None:
            assert len(frame) == 1 and records.provenance(frame)
        taken(lambda: records.curves(results, mock=True))
    finally:
        shutil.copy(run.parents[1] / "before" / name, run / name)


@pytest.fixture(scope="module")
def labels(folder: Path) -> Path:
    """A store of two steps."""
    numbers = np.random.default_rng(0)
    store = soft_labels.begin(folder / "labels", {"seed": 0}, 3, steps=2, num_classes=300, batch_size=4)
    logits = -numbers.random((4, 3)).astype(np.float16)
    store.add([SoftLabels(logits, numbers.integers(0, 300, (4, 3), np.uint16), logits[:, 0] - 1)] * 2, np.zeros(4))
    return folder / "labels"


@given(data=st.data())
def test_any_store_is_read_or_refused(labels: Path, data: st.DataObject) -> None:
    """Other values in its header, and damaged bytes of its files."""
    path = data.draw(st.sampled_from(sorted(labels.iterdir())))
    before = content = path.read_bytes()
    if path.suffix == ".json" and data.draw(st.booleans()):
        content = json.dumps(changed(json.loads(content), data.draw(PLACES), data.draw(VALUES))).encode()
    else:
        content = data.draw(damages(content))
    path.write_bytes(content)
    try:
        if (store := taken(lambda: soft_labels.load(labels))) is not None:
            taken(lambda: store.require({"seed": 0}, 2))
            taken(lambda: [store.read(step) for step in range(2)])
            taken(lambda: store.check(0, np.zeros((4, 2, 2, 1), np.float32)))
    finally:
        path.write_bytes(before)


def npz(arrays: dict[str, Any], *, compressed: bool) -> bytes:
    """An archive of arrays, and of bytes that are none."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            member = io.BytesIO(value if isinstance(value, bytes) else b"")
            if not isinstance(value, bytes):
                np.save(member, value, allow_pickle=True)
            archive.writestr(f"{name}.npy", member.getvalue())
    return content.getvalue()


ARRAYS = st.dictionaries(
    st.text(alphabet="ab/.é", min_size=1, max_size=4),
    st.binary(max_size=20)
    | st.sampled_from([np.float32(1), np.zeros((2, 3), np.float16), np.full(3, np.nan), np.array(["x"])])
    | st.sampled_from([np.array([None]), np.zeros(0), np.array(1 + 2j), np.array(b"x"), np.array("2001", "M8[D]")]),
    max_size=4,
)


@given(ARRAYS, VALUES | st.dictionaries(st.sampled_from(["model", "resolution", "input_range"]), VALUES), st.data())
def test_any_npz_is_read_or_refused(folder: Path, arrays: dict[str, Any], facts: Any, data: st.DataObject) -> None:
    """Weights, what they say of themselves, and training checkpoints: odd members, damage, and other types."""
    content = npz(arrays | {"__metadata__": np.array(json.dumps(facts))}, compressed=data.draw(st.booleans()))
    path = folder / "weights.npz"
    path.write_bytes(data.draw(damages(content)) if data.draw(st.booleans()) else content)
    if (tree := taken(lambda: weights.load_npz(path))) is not None:
        taken(lambda: weights.unpack(tree))
        taken(lambda: weights.match(tree, {"a": np.zeros(3)}, "this"))
    taken(lambda: weights.load_metadata(path))
    taken(lambda: teacher.facts_of(path))
    shutil.copy(path, folder / checkpoint.NEWEST)
    taken(lambda: checkpoint.load(folder))


def pictures() -> dict[str, bytes]:
    """A picture in several formats and modes."""
    pixels = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    made = {}
    for kind, modes in {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "P", "I;16", "LA"), "TIFF": ("RGB", "F"),
                        "GIF": ("P",), "WEBP": ("RGB",), "BMP": ("RGB",)}.items():  # fmt: skip
        for mode in modes:
            content = io.BytesIO()
            deep = Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
            (deep if mode == "I;16" else Image.fromarray(pixels).convert(mode)).save(content, kind)
            made[f"{kind} {mode}"] = content.getvalue()
    return made


PICTURES = pictures()


@given(st.sampled_from(sorted(PICTURES)), st.data(), st.sampled_from([1, 3]))
def test_any_picture_is_shown_or_refused(kind: str, data: st.DataObject, channels: int) -> None:
    """Whole, as a crop and as evaluation shows it."""
    content = data.draw(damages(PICTURES[kind]))
    ours = decode.ImageError
    taken(lambda: decode.sides(content), ours)
    if (whole := taken(lambda: decode.decode(content, channels), ours)) is not None:
        assert whole.dtype == np.uint8 and whole.ndim == 3 and whole.shape[2] == channels
    look = decode.Look((0.1, 0.2, 0.5, 0.4), True, 8)
    if (shown := taken(lambda: decode.crops(content, [look], channels), ours)) is not None:
        assert shown[0].shape == (8, 8, channels)
    if whole is not None and whole.size < 10**6:
        taken(lambda: decode.evaluation(content, 10, 8, channels), ours)
        taken(lambda: decode.fitted(content, channels, 12), ours)
