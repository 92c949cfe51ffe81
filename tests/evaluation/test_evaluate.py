"""The command that judges a saved network on a data set."""

from __future__ import annotations

from pathlib import Path

import jax
import made_up
import numpy as np
import pytest
import tiny

from distill_lib import cli, datasets, teachers, weights
from distill_lib.datasets import decode
from distill_lib.evaluation import evaluate, metrics
from distill_lib.recipes import presets


def facts(text: str) -> dict[str, str]:
    """The printed table."""
    return dict(line.split(maxsplit=1) for line in text.splitlines())


@pytest.mark.slow
def test_a_network_is_judged_as_evaluation_does(tmp_path: Path) -> None:
    """The same metrics as from the network's own answers to the middle of the images."""
    network = str(tiny.write_teacher(tmp_path / "student.npz"))
    found = evaluate.evaluate(network, "fashion", resolution=8, side=8 / 28, limit=30)
    images, labels, *_ = datasets.arrays("fashion", "test", 30)
    teacher = teachers.load(network, num_classes=10, channels=1, resolution=8)
    logits = jax.jit(teacher.logits)(images[:, 10:18, 10:18] / np.float32(127.5) - 1)
    expected = metrics.metrics(np.asarray(logits), labels)
    assert (found["images"], found["resolution"], found["side"]) == (30, "8", 8 / 28)
    assert found["top1"] == expected["top1"] and found["ece"] == pytest.approx(expected["ece"], abs=1e-4)


def test_a_student_is_shown_what_its_record_says(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Resolution and central square of its training, unless the command says otherwise."""
    record = made_up.write_run(tmp_path, "quick", "labels", 0, resolution=8, eval_side=0.5)
    network = str(tiny.write_teacher(tmp_path / record["study"] / record["run_id"] / "student.npz"))
    assert cli.main(["evaluate", network, "fashion", "--mock", "--limit", "4"]) == 0
    first, table = capsys.readouterr().out.split("\n", 1)
    assert "made-up" in first
    assert list(facts(table)) == ["images", "resolution", "side", "top1", "ece"]
    assert (facts(table)["images"], facts(table)["resolution"], facts(table)["side"]) == ("4", "8", "0.5")
    assert cli.main(["evaluate", network, "fashion", "--mock", "--limit", "4", "--side", "1"]) == 0
    assert "side        1\n" in capsys.readouterr().out


def test_a_set_for_evaluation_only_is_shown_as_what_its_networks_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """ImageNet's resolution and square; images may have several labels."""
    tiny.register()
    monkeypatch.setitem(presets.COMMON, "imagenet", presets.COMMON["imagenet"] | {"resolution": 16})
    network = tmp_path / "own.npz"
    weights.save_npz(network, tiny.random_params(tiny.STUDENT, 1000, channels=3), {"model": tiny.STUDENT})
    assert cli.main(["evaluate", str(network), "imagenet_real", "--mock", "--limit", "4"]) == 0
    found = facts(capsys.readouterr().out.split("\n", 1)[1])
    assert (found["resolution"], found["side"]) == ("16", "0.875") and int(found["images"]) <= 4


def test_a_broken_image_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All metrics are those of the other images, with a teacher and without."""
    network = str(tiny.write_teacher(tmp_path / "student.npz"))
    other = tmp_path / "teacher.npz"
    weights.save_npz(other, tiny.random_params(tiny.STUDENT, 10, seed=1), {"model": tiny.STUDENT})
    options: dict = {"teacher": str(other), "resolution": 8, "side": 8 / 28}
    expected, sound = evaluate.evaluate(network, "fashion", limit=29, **options), decode.evaluation
    last = datasets.load("fashion", "test").encoded(29).image

    def evaluation(image: np.ndarray, *sizes: int) -> np.ndarray:
        if np.array_equal(image, last):
            raise decode.ImageError("made up")
        return sound(image, *sizes)

    monkeypatch.setattr(decode, "evaluation", evaluation)
    found = evaluate.evaluate(network, "fashion", limit=30, **options)
    assert found["images"] == 29 and found.keys() == expected.keys() > {"top1", "kl", "cka"}
    for name in ("top1", "ece", "kl", "agreement", "cka"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name


def test_a_student_is_compared_with_a_teacher(tmp_path: Path) -> None:
    """With itself it agrees in everything; alone nothing is said of a teacher."""
    network = str(tiny.write_teacher(tmp_path / "student.npz"))
    options = {"resolution": 8, "limit": 30}
    alone, found = (evaluate.evaluate(network, "fashion", teacher=name, **options) for name in (None, network))
    assert found == alone | {name: found[name] for name in ("kl", "agreement", "agreement@5", "cka")}
    assert (found["kl"], found["agreement"], found["agreement@5"]) == (0, 1, 1)
    assert found["cka"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mock", "imagenet_w2"], "unknown dataset 'imagenet_w2'. Did you mean 'imagenet_v2'?"),
        (["mock", "imagenet_v2", "--split", "train"], "unknown split of imagenet_v2 'train'. Valid: test."),
        (["nobody", "fashion", "--mock"], "unknown teacher 'nobody'."),
        (["absent.npz", "fashion", "--mock"], "absent.npz"),
        (["fashion", "flowers", "--mock"], "has a head of 10 classes"),
        (["mock", "fashion", "--mock", "--resolution", "0"], "resolution must be from 1 to 2048"),
        (["mock", "fashion", "--mock", "--resolution", "65536"], "resolution must be from 1 to 2048"),
        (["mock", "fashion", "--mock", "--side", "1.5"], "side a fraction above 0"),
        (["mock", "fashion", "--limit", "10001"], "choose a limit from 1 to 10000"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["evaluate", *arguments]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and message in err and err.count("\n") == 1 and not out
