"""Experiment notebooks run by papermill on mock data, and stop before any training where a name is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_lib import cli, teachers, values
from distill_lib.datasets import package_images
from distill_lib.errors import DistillError
from distill_lib.experiments import notebooks

EXPERIMENTS = Path(__file__).parents[2] / "book" / "experiments"
NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.ipynb"))
OF_A_SET = {"flowers", "pets", "food", "sun397"}  # whose data set is their name


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder of the test's own."""
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    return tmp_path


def written(path: Path, *sources: str, tags: tuple[str, ...] = ()) -> Path:
    """A notebook of these code cells; the tags are the first one's."""
    cell: dict = {"cell_type": "code", "outputs": [], "execution_count": None}
    cells = [
        cell | {"id": f"c{number}", "source": source, "metadata": {"tags": list(tags)} if number == 0 else {}}
        for number, source in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2.5", 2.5),
        ("10_000", 10_000),
        ("true", True),
        ("None", None),
        ("no", "no"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("same/ic", "same/ic"),
        ("[same/ic, 1e-3, None]", ["same/ic", 0.001, None]),
        ("{a", "{a"),
        ("a: b", "a: b"),
        ("run #1", "run #1"),
        ('!!timestamp "2001-99-99"', '!!timestamp "2001-99-99"'),
        ("!!timestamp 2001-01-01", "!!timestamp 2001-01-01"),
        ("!!int abc", "!!int abc"),
        ("!!bool x", "!!bool x"),
        ("!!set {a}", "!!set {a}"),
        ("&a [*a]", "&a [*a]"),
        ("[" * 3000, "[" * 3000),
        ("!!timestamp x", "!!timestamp x"),
    ],
)
def test_values_of_the_command_line(text: str, value: Any) -> None:
    found = values.parse_value(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_clean_and_explain_their_parameters(name: str) -> None:
    content = json.loads((EXPERIMENTS / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    *lines, last = "".join(parameters["source"]).splitlines()
    assert all(" = " in line and "  # " in line for line in lines)
    assert last == "declared = dir()"
    images = {"own_photographs": {"folder"}}.get(name, set() if name in OF_A_SET else {"dataset"})
    assert images | {"variant", "results"} <= set(notebooks.parameters_of(EXPERIMENTS / f"{name}.ipynb"))


def test_a_notebook_is_found_by_name_or_path(tmp_path: Path) -> None:
    assert notebooks.find("distill", EXPERIMENTS.parent).samefile(EXPERIMENTS / "distill.ipynb")
    assert notebooks.find(str(EXPERIMENTS / "distill.ipynb"), tmp_path) == EXPERIMENTS / "distill.ipynb"
    with pytest.raises(DistillError, match="unknown notebook 'distil'. Did you mean 'distill'. Valid: ablations"):
        notebooks.find("distil", EXPERIMENTS)


def test_the_list_says_of_every_notebook_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """In its own words, from wherever in the project it is called."""
    assert cli.main(["run", "--list"]) == 0
    blocks = capsys.readouterr().out.rstrip("\n").split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == NAMES
    for name, block in zip(NAMES, blocks, strict=True):
        _, *cost = block.splitlines()
        own = json.loads((EXPERIMENTS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"][0]["source"]
        assert f"**Cost**: {' '.join(' '.join(cost).split())}" in " ".join("".join(own).split()), name


def test_the_list_is_of_the_notebooks_of_a_folder(tmp_path: Path) -> None:
    """One that does not say what it costs is listed all the same; no notebook, or what is none, is an error."""
    with pytest.raises(DistillError, match="there are no notebooks in .*: call this in the project's folder"):
        notebooks.listing(tmp_path)
    path = written(tmp_path / "a.ipynb", "1")
    assert notebooks.listing(tmp_path) == "a: \n    it does not say what it costs."
    path.write_text("[]")
    with pytest.raises(DistillError, match=r"a\.ipynb is not a notebook"):
        notebooks.listing(tmp_path)


def test_parameters_are_the_assigned_names_in_order(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ipynb", "b = 1  # first\na = None\ndeclared = dir()", "c = 2", tags=("parameters",))
    assert notebooks.parameters_of(path) == {"b": False, "a": False}
    path.write_text("{")
    with pytest.raises(DistillError, match=r"a\.ipynb is not a notebook"):
        notebooks.parameters_of(path)


def test_one_value_stands_for_a_list_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-p seeds 3` and `-p policies mix` mean what they say, where the notebook has a list."""
    path = written(tmp_path / "a.ipynb", "seeds = [0]\npolicies = []\nepochs = None", tags=("parameters",))
    executed = []
    monkeypatch.setattr(notebooks, "_execute", lambda *arguments: executed.append(arguments[2]))
    given = {"seeds": "3", "policies": "mix", "epochs": "2"}
    assert cli.main(["run", str(path), *(word for pair in given.items() for word in ("-p", *pair))]) == 0
    assert executed == [{"seeds": [3], "policies": ["mix"], "epochs": 2}]


def test_refuse_unknown_lists_the_declared_names() -> None:
    declared = ["In", "_i1", "dataset", "open", "variant"]
    notebooks.refuse_unknown(declared, [*declared, "declared", "notebooks", "_i2"])
    with pytest.raises(
        DistillError, match="unknown parameter 'varient'. Did you mean 'variant'. Valid: dataset, variant"
    ):
        notebooks.refuse_unknown(declared, [*declared, "varient"])


def test_a_misspelt_parameter_starts_nothing(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(EXPERIMENTS / "consistency.ipynb"), "-p", "polices", "[mix]"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "error: unknown parameter 'polices'. Did you mean 'policies'? Valid: dataset, variant, policies"
    )
    assert said.count("\n") == 1 and not list(results.iterdir())


def test_papermill_itself_stops_at_a_misspelt_parameter(tmp_path: Path) -> None:
    import papermill

    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            EXPERIMENTS / "distill.ipynb", tmp_path / "out.ipynb", {"polcy": "mix"}, progress_bar=False
        )
    assert caught.value.ename == "DistillError"
    assert "unknown parameter 'polcy'. Did you mean 'policy'? Valid: batch_size, compression" in caught.value.evalue


def run_here(name: str, **parameters: Any) -> None:
    """Runs the cells of a notebook in this process, in the order that papermill has: what is given after its own."""
    namespace: dict = {}
    for cell in json.loads((EXPERIMENTS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), namespace)
            namespace |= parameters if "parameters" in cell["metadata"].get("tags", []) else {}


@pytest.mark.parametrize(
    ("notebook", "name", "value", "message"),
    [
        ("distill", "dataset", "fashon", "unknown dataset 'fashon'. Did you mean 'fashion'. Valid: fashion,"),
        ("consistency", "variant", "quik", "unknown variant of fashion 'quik'. Did you mean 'quick'. Valid: quick,"),
        ("consistency", "policies", ["mix", "funmatch"], "unknown policy 'funmatch'. Valid: fix/rs, fix/cc, fix/ic_"),
    ],
)
def test_a_misspelt_name_stops_before_any_training(
    notebook: str, name: str, value: Any, message: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DistillError, match=message):
        run_here(notebook, **{name: value})
    assert "step" not in capsys.readouterr().out and not list(results.iterdir())


@pytest.mark.slow
def test_what_stops_a_notebook_is_one_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the library in a cell is told as the command's own; the executed copy is kept."""
    assert cli.main(["run", str(EXPERIMENTS / "distill.ipynb"), "-p", "dataset", "fashon"]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("error: unknown dataset 'fashon'. Did you mean 'fashion'? Valid:")
    assert [path.name for path in results.rglob("*") if path.is_file()] == ["distill.ipynb"]


@pytest.mark.slow
def test_consistency_runs_on_mock_data_and_reuses(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(EXPERIMENTS / "consistency.ipynb"), "-p", "variant", "smoke", "-p", "policies", "[labels, same/ic]"]
    assert cli.main(["run", *command]) == 0
    assert "images/s, loss" in capsys.readouterr().out
    found = [json.loads(path.read_text()) for path in results.glob("fashion_smoke/*/run.json")]
    assert {record["recipe"]["policy"] for record in found} == {"labels", "same/ic"}
    assert all(record["mock"] for record in found)

    before = {path: path.stat().st_mtime_ns for path in results.glob("fashion_smoke/*/*")}
    assert cli.main(["run", *command]) == 0
    assert capsys.readouterr().out.count(": reused, finished on ") == 2
    assert {path: path.stat().st_mtime_ns for path in results.glob("fashion_smoke/*/*")} == before


@pytest.mark.slow
def test_the_teacher_is_trained_tried_under_crops_and_saved(results: Path) -> None:
    target = results / "teacher.npz"
    command = [str(EXPERIMENTS / "teacher.ipynb"), "-p", "variant", "smoke", "-p", "save_to", str(target)]
    assert cli.main(["run", *command]) == 0
    (path,) = results.glob("fashion_teacher_smoke/*/run.json")
    assert 0 <= json.loads(path.read_text())["result"]["test_top1_under_crops"] <= 1
    saved = teachers.load(str(target), num_classes=10, channels=1, resolution=28)
    assert saved.logits(np.zeros((2, 28, 28, 1), np.float32)).shape == (2, 10)


@pytest.mark.slow
def test_own_photographs_go_from_a_folder_to_a_student(
    results: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """On mock data: the time is told first, and the student learns from the teacher of the same call."""
    folder = package_images.write_folder(tmp_path_factory.mktemp("photographs"))
    command = [str(EXPERIMENTS / "own_photographs.ipynb"), "-p", "variant", "smoke", "-p", "folder", str(folder)]
    assert cli.main(["run", *command]) == 0
    said = capsys.readouterr().out
    assert said.startswith("5 classes: cat, coffee") and "\nAbout 1 minute " in said and "\nstudent: " in said
    records = [json.loads(path.read_text()) for path in results.glob("folder-*_smoke/*/run.json")]
    teacher, student = sorted(records, key=lambda record: record["recipe"]["policy"])
    assert teacher["mock"] and student["recipe"]["teacher"].endswith(f"{teacher['run_id']}/student.npz")


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (None, "there is no folder /.*"),
        (["a/1.png", "a/2.png", "a/3.png"], ".* has 1 class folders, and at least 2 are needed"),
        (["a/1.png", "b/1.png"], "the validation split of .* is empty: add pictures"),
    ],
)
def test_a_folder_that_cannot_be_learnt_from_is_one_line(
    pictures: list[str] | None, message: str, results: Path
) -> None:
    folder = results / "pictures"
    for name in pictures or ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not looked at")
    with pytest.raises(DistillError, match=message) as error:
        run_here("own_photographs", folder=str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("before", [None, "/elsewhere"])
def test_a_notebook_imports_what_lies_beside_it(
    before: str | None, results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any working folder, as in Jupyter; what else Python was told to look for comes after it."""
    (folder := results / "chapter").mkdir()
    (folder / "of_the_chapter.py").write_text("ANSWER = 42\n")
    path = written(folder / "a.ipynb", "import os, of_the_chapter", "print(of_the_chapter.ANSWER, os.getcwd())")
    monkeypatch.chdir(results)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before:
        monkeypatch.setenv("PYTHONPATH", before)
    assert cli.main(["run", str(path.relative_to(results))]) == 0
    assert capsys.readouterr().out == f"42 {results}\n"
    assert os.environ.get("PYTHONPATH") == before


def test_a_failing_cell_is_one_line_and_keeps_its_traceback(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(results / "broken.ipynb", "print('so far')", "raise RuntimeError('one\\ntwo')")
    assert cli.main(["run", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == "so far\n"
    *_, where, last = said.err.splitlines()
    executed = results / "notebooks" / "broken.ipynb"
    assert where == f"The executed notebook, with the traceback: {executed}"
    assert last == "error: RuntimeError: one"
    assert "Traceback" in executed.read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="ZeroMQ has no sockets of files on Windows")
def test_notebooks_that_start_together_share_no_ports(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Free TCP ports are chosen before a kernel binds them: two that start together may be given the same one."""
    about = "from ipykernel.connect import get_connection_info"
    path = written(results / "where.ipynb", about, "print(get_connection_info(unpack=True)['transport'])")
    assert cli.main(["run", str(path)]) == 0
    assert capsys.readouterr().out == "ipc\n"


def test_a_killed_kernel_is_one_line(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(results / "killed.ipynb", "import os; os.kill(os.getpid(), 9)")
    assert cli.main(["run", str(path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the notebook's process was killed")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "fine.ipynb", "1")
    assert cli.main(["run", str(path), "--output", str(path / "out.ipynb")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: cannot write {path / 'out.ipynb'}") and said.count("\n") == 1


FULL = """
import contextlib, pathlib
from distill_lib import weights
from faults import disk
with disk.faulty(disk.full(folder, 2)) if folder.endswith("full") else contextlib.nullcontext():
    weights.write_atomically(pathlib.Path(folder) / "student.npz", b"123")
"""


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_with_room_the_command_goes_on(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk of the results, told by the notebook's process, and that of the executed copy."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), str(EXPERIMENTS.parents[1])]))
    path = written(results / "fills.ipynb", f"folder = '{results / 'full'}'", FULL, tags=("parameters",))
    roomy = ["-p", "folder", str(results / "roomy")]
    (copy := results / "copy.ipynb").symlink_to("/dev/full")  # a device of Linux, on which there is no room
    tries = {results / "full" / "student.npz": []} | ({copy: [*roomy, "--output", str(copy)]} if copy.exists() else {})
    for place, arguments in tries.items():
        assert cli.main(["run", str(path), *arguments]) == 1
        *_, said = capsys.readouterr().err.splitlines()
        assert said.startswith(f"error: cannot write {place} (No space left on device") and "make room there" in said
        assert "Traceback" not in said
    assert cli.main(["run", str(path), *roomy]) == 0
    assert (results / "roomy" / "student.npz").read_bytes() == b"123"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Says yes."""
        return True


def on_screen(text: str) -> list[str]:
    """The lines that a terminal shows."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[K|\r|\n|[^\x1b\r\n]+", text):
        if part == "\n":
            lines.append("")
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        elif part != "\r":
            lines[-1] = lines[-1][:column] + part + lines[-1][column + len(part) :]
        column = column + len(part) if part not in ("\r", "\n", "\x1b[K") else column * (part == "\x1b[K")
    return lines


PIECES = ["start\nmix: step 5/10, 90 images/s\nWARN\n", "mix: step 7/10, 90 images/s\n", "mix: step 10/10, rest\n"]


def test_progress_stays_in_a_log_and_is_written_over_at_a_terminal() -> None:
    """By the next line, of which nothing older is left; but for the last line of a run, or before it ends early."""
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        screen = notebooks.Screen(stream)
        for piece in PIECES:
            screen.write(piece)
        screen.close()
    assert log.getvalue() == "".join(PIECES)
    assert on_screen(terminal.getvalue()) == ["start", "WARN", "mix: step 10/10, rest", ""]
    stopped = notebooks.Screen(stream := Terminal())
    stopped.write(PIECES[1])
    stopped.close()
    assert on_screen(stream.getvalue() + "error: no") == [PIECES[1].strip(), "error: no"]


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "sweep.ipynb"),
        ({"JAX_PROCESS_ID": "0"}, "sweep.ipynb"),
        ({"JAX_PROCESS_ID": "3"}, "sweep_3.ipynb"),
        ({"SLURM_PROCID": "1"}, "sweep_1.ipynb"),
    ],
)
def test_processes_leave_executed_copies_of_their_own(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that train together would write one file at the same time."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert notebooks.copy_name(EXPERIMENTS / "sweep.ipynb") == name
