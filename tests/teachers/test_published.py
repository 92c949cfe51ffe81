"""Published checkpoints: names lead to the right file and always the same one, and a file into the model it fits."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import big_transfer
import flax.linen as nn
import jax
import numpy as np
import pytest
from checkpoint_files import CONTENT, DIGEST, FILE, NAME, npz

from distill_lib import cli, models, weights
from distill_lib.errors import DistillError
from distill_lib.models import vit
from distill_lib.teachers import published


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own; returns the cache in it, which is not made yet."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DISTILL_CHECKPOINTS", raising=False)
    return tmp_path / "home" / ".cache" / "distill_lib" / "checkpoints"


@pytest.fixture
def lock(home: Path) -> Path:
    return home.parent / "checkpoints.lock.json"


def files(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def error_of(call: Callable[[], object]) -> str:
    """The one line that a call fails with."""
    with pytest.raises(DistillError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_holds_the_paper_teachers_and_students() -> None:
    """Names are those of the released files; recipes ask for the teachers by them."""
    teachers = [f"R152x2_T_{data}" for data in ("224", "384", "flowers128", "pet128", "food128", "sun128")]
    starts = ["BiT-M-R50x1", "BiT-M-R152x2"]
    assert {*teachers, "R50x1_160", "R50x1_224", *starts} <= published.CHECKPOINTS.keys()
    for name, checkpoint in published.CHECKPOINTS.items():
        assert checkpoint.name == name and checkpoint.source
        assert checkpoint.url.startswith("https://storage.googleapis.com/") and checkpoint.file.endswith(".npz")
        assert checkpoint.top1 is None or 70 < checkpoint.top1 < 100
    files_of = [checkpoint.file for checkpoint in published.CHECKPOINTS.values()]
    assert len(set(files_of)) == len(files_of)
    assert published.CHECKPOINTS["R152x2_T_pet128"].url.endswith("/bit_models/distill/R152x2_T_pet128.npz")


@functools.cache
def body(model: str) -> tuple[int, int]:
    """Parameters of a model without its head, and the width of what the head sees."""
    shapes = weights.flatten(models.shapes(models.create(model, 1), (224, 224, 3))["params"])
    total = sum(int(np.prod(leaf.shape)) for name, leaf in shapes.items() if not name.startswith("head/"))
    return total, shapes["head/kernel"].shape[0]


@pytest.mark.parametrize("name", published.CHECKPOINTS)
def test_sizes_are_those_of_the_models(name: str) -> None:
    """A wrong class count or model in the table would be seen only after a download of a gigabyte."""
    checkpoint = published.CHECKPOINTS[name]
    inner, width = body(checkpoint.model)
    assert checkpoint.parameters == inner + (width + 1) * checkpoint.num_classes
    assert checkpoint.about_bytes == 4 * checkpoint.parameters


def test_a_local_path_is_taken_as_it_is(tmp_path: Path, lock: Path) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(CONTENT)
    assert published.resolve(path) == published.resolve(str(path)) == path
    assert not lock.exists()


def test_unknown_names_list_the_valid_ones() -> None:
    """And a path that leads nowhere is told as one."""
    message = error_of(lambda: published.resolve("R50x1_225"))
    assert "Did you mean 'R50x1_224'?" in message and all(name in message for name in published.CHECKPOINTS)
    assert error_of(lambda: published.resolve("there/own.npz")) == "no checkpoint at there/own.npz; check the path."
    assert "give the name R50x1_224 to have it downloaded" in error_of(lambda: published.resolve(FILE))


def test_the_named_folder_is_looked_into_before_the_cache(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    (home / FILE).write_bytes(CONTENT)
    monkeypatch.setenv("DISTILL_CHECKPOINTS", str(tmp_path / "shared"))
    message = error_of(lambda: published.resolve(NAME))
    assert f"DISTILL_CHECKPOINTS names {tmp_path / 'shared'}, which is no folder" in message
    (tmp_path / "shared").mkdir()
    assert published.resolve(NAME) == home / FILE
    (tmp_path / "shared" / FILE).write_bytes(CONTENT)
    assert published.resolve(NAME) == tmp_path / "shared" / FILE
    assert published.resolve(NAME, folder=home) == home / FILE


def test_offline_errors_name_the_folder_that_the_user_chose(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the cache, where downloads go."""
    monkeypatch.setenv("DISTILL_CHECKPOINTS", str(tmp_path))
    nowhere = dataclasses.replace(published.CHECKPOINTS[NAME], url=f"https://127.0.0.1:1/{FILE}")
    monkeypatch.setitem(published.CHECKPOINTS, NAME, nowhere)
    assert error_of(lambda: published.resolve(NAME)).endswith(f"put it into {tmp_path} as {FILE}.")


def test_a_file_that_changed_since_its_first_use_is_refused(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run would else learn from another teacher than its record says; neither file nor record is touched."""
    monkeypatch.setenv("DISTILL_CHECKPOINTS", str(tmp_path))
    (tmp_path / FILE).write_bytes(CONTENT)
    assert published.resolve(NAME) == tmp_path / FILE
    (tmp_path / FILE).write_bytes(npz(a=np.ones(3)))
    before = (tmp_path / FILE).read_bytes(), lock.read_bytes()
    message = error_of(lambda: published.resolve(NAME))
    assert DIGEST in message and hashlib.sha256(before[0]).hexdigest() in message
    assert ((tmp_path / FILE).read_bytes(), lock.read_bytes()) == before


def test_a_damaged_file_is_never_recorded(tmp_path: Path, lock: Path) -> None:
    """Else the whole one would be refused later."""
    (tmp_path / FILE).write_bytes(CONTENT[:-100])
    assert "is not a whole .npz" in error_of(lambda: published.resolve(NAME, folder=tmp_path))
    assert not lock.exists()


def test_the_lock_is_sorted(tmp_path: Path, lock: Path) -> None:
    for name in ("R50x1_224", "BiT-M-R50x1"):
        (tmp_path / f"{name}.npz").write_bytes(CONTENT)
        published.resolve(name, folder=tmp_path)
    assert list(json.loads(lock.read_text()).items()) == [("BiT-M-R50x1", DIGEST), ("R50x1_224", DIGEST)]


SHAPE = (16, 16, 3)


def arrays_of(model: object, shape: tuple[int, int, int] = SHAPE) -> dict[str, np.ndarray]:
    """Flat parameters for a model, in float16 and drawn by NumPy."""
    numbers = np.random.default_rng(0)
    expected = weights.flatten(models.shapes(model, shape)["params"])  # type: ignore[arg-type]
    return {name: numbers.normal(size=leaf.shape).astype(np.float16) for name, leaf in expected.items()}


@pytest.mark.parametrize("rename", [dict, big_transfer.renamed])
def test_a_file_of_either_naming_is_loaded(tmp_path: Path, rename: Callable[[dict], dict]) -> None:
    """Half precision becomes float32, exactly."""
    model = models.create("bit_r11w8", 5)
    arrays = arrays_of(model)
    (tmp_path / "bit.npz").write_bytes(npz(**rename(arrays)))
    variables = published.load(tmp_path / "bit.npz", model, SHAPE)
    assert variables.keys() == {"params"}
    found = weights.flatten(variables["params"])
    assert found.keys() == arrays.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, arrays[name].astype(np.float32))


class Normalised(nn.Module):
    """The least network with running statistics."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, name="norm")(images.mean((1, 2)))
        return nn.Dense(2, name="head")(x)


def test_running_statistics_are_loaded_too(tmp_path: Path) -> None:
    """Under "batch_stats/", as a student with BatchNorm is saved."""
    expected = models.shapes(Normalised(), SHAPE)
    flat = weights.flatten(weights.pack(expected))
    assert "batch_stats/norm/mean" in flat
    (tmp_path / "own.npz").write_bytes(npz(**{name: np.ones(leaf.shape) for name, leaf in flat.items()}))
    variables = published.load(tmp_path / "own.npz", Normalised(), SHAPE)
    assert weights.flatten(variables).keys() == weights.flatten(expected).keys()
    assert {value.dtype for value in weights.flatten(variables).values()} == {np.dtype(np.float32)}


def test_a_head_of_other_classes_is_replaced_only_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By a silent new head a published network would answer at random."""
    path = tmp_path / "bit.npz"
    path.write_bytes(npz(**big_transfer.renamed(arrays_of(models.create("bit_r11w8", 5)))))
    model = models.create("bit_r11w8", 3)
    message = error_of(lambda: published.load(path, model, SHAPE))
    assert f"{path} has a head of 5 classes, the model one of 3" in message and "replace_head=True" in message
    head = published.load(path, model, SHAPE, replace_head=True)["params"]["head"]
    assert head["kernel"].shape[1] == 3 and not head["kernel"].any() and not head["bias"].any()
    assert capsys.readouterr().out == f"{path} has a head of 5 classes; it was replaced by zeros for 3 classes.\n"


def test_position_embeddings_are_resized_to_the_images(tmp_path: Path) -> None:
    """A ViT of 32 pixels for images of 48: 2 x 2 patches become 3 x 3, the class token keeps its own."""
    model = vit.ViT(num_classes=2, width=8, heads=2, depth=1)
    arrays = arrays_of(model, (32, 32, 3))
    path = tmp_path / "vit.npz"
    path.write_bytes(npz(**arrays))
    name = "Transformer/posembed_input/pos_embedding"
    found = weights.flatten(published.load(path, model, (48, 48, 3))["params"])
    assert found[name].shape == (1, 10, 8) and isinstance(found[name], np.ndarray)
    np.testing.assert_array_equal(found[name][:, 0], arrays[name][:, 0].astype(np.float32))
    path.write_bytes(npz(**arrays | {name: np.zeros((1, 5, 6), np.float32)}))
    assert f"{name} has shape (1, 5, 6), not (1, 10, 8)" in error_of(lambda: published.load(path, model, (48, 48, 3)))


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    """All that is missing and surplus is listed; a head to be replaced does not hide it."""
    (tmp_path / "bit.npz").write_bytes(npz(**arrays_of(models.create("bit_r11w8", 5))))
    other = models.create("bit_r11w16", 3)
    message = error_of(lambda: published.load(tmp_path / "bit.npz", other, SHAPE, replace_head=True))
    assert "does not fit the model" in message and "root_block/conv_root/kernel has shape" in message


def test_numbers_of_another_kind_are_refused(tmp_path: Path) -> None:
    """Also bfloat16, which NumPy reads as raw bytes."""
    model = models.create("bit_r11w8", 5)
    for kind in ("int32", "V2"):
        (tmp_path / "bit.npz").write_bytes(npz(**arrays_of(model) | {"head/bias": np.zeros(5, kind)}))
        message = error_of(lambda: published.load(tmp_path / "bit.npz", model, SHAPE))
        assert "head/bias holds" in message and "not floating-point numbers" in message


def test_pickled_objects_in_a_published_file_are_refused(tmp_path: Path, lock: Path) -> None:
    """A pickle runs what it likes when it is loaded; its checksum may well be the recorded one."""
    (tmp_path / FILE).write_bytes(npz(**{"head/bias": np.array([print], object)}))
    for ask in (
        lambda: published.resolve(NAME, folder=tmp_path),
        lambda: published.load(tmp_path / FILE, models.create("bit_r11w8", 5), SHAPE),
    ):
        assert "holds pickled objects, which are never loaded" in error_of(ask)
    assert not lock.exists()


def test_without_names_the_table_is_printed(home: Path, capsys: pytest.CaptureFixture) -> None:
    """With what is at hand; nothing is downloaded, written or hashed."""
    home.mkdir(parents=True)
    (home / FILE).touch()
    assert cli.main(["teachers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *published.CHECKPOINTS]
    (student,) = (line for line in lines if line.startswith(f"{NAME} "))
    assert "bit_r50x1" in student and "about 102 MB" in student and "82.8" in student and str(home / FILE) in student
    (teacher,) = (line for line in lines if line.startswith("R152x2_T_384 "))
    assert " 83.7 " in teacher and " no " in teacher and "released README: 84.3" in teacher
    assert files(home.parent) == ["checkpoints"]


def test_names_are_fetched_and_their_paths_printed(
    tmp_path: Path, home: Path, lock: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, path: Path, accept: Callable[[Path], object], *, by_hand: Path) -> Path:
        assert url == published.CHECKPOINTS[NAME].url
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        accept(path)
        return path

    monkeypatch.setattr(published, "fetch", fetch)
    assert cli.main(["teachers", NAME]) == 0
    assert cli.main(["teachers", NAME, "--folder", str(tmp_path / "here")]) == 0
    assert capsys.readouterr().out == f"{home / FILE}\n{tmp_path / 'here' / FILE}\n"
    assert json.loads(lock.read_text()) == {NAME: DIGEST}


def test_errors_are_one_line_and_exit_code_1(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["teachers", "R50x1_225"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: unknown checkpoint") and captured.err.count("\n") == 1


def test_an_interrupt_says_that_it_can_go_on(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(published, "resolve", interrupted)
    assert cli.main(["teachers", NAME]) == 130
    assert "the same command goes on where it stopped" in capsys.readouterr().err
