"""The book's sources: pages run without any record and with made-up ones, and say what is so.

`nox -s browser` tests the pages that `nox -s book` has built.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import made_up
import pytest

from distill_lib import cli, recipes
from distill_lib.experiments import notebooks, plans, running
from distill_lib.report import cost

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "book"
PAGES = sorted(
    [
        *BOOK.glob("*.md"),
        *(path for part in ("idea", "play", "reference", "teaching") for path in BOOK.glob(f"{part}/*.md")),
    ]
)
NAMES = [str(path.relative_to(BOOK).with_suffix("")) for path in PAGES]
EXPERIMENTS = sorted(BOOK.glob("experiments/*.ipynb"))
CHAPTERS = (
    *(
        "consistency",
        "patience",
        "support",
        "capacity",
        "labels",
        "resolutions_and_ensembles",
        "how_much_teacher",
        "mobilenet",
        "families",
        "optimizers",
        "initialization",
    ),
    *("out_of_domain", "few_photographs", "dense", "ablations", "robustness", "quantize"),
)
"""Notebooks that the book shows as chapters on an experiment."""
SETS = ("flowers", "pets", "food", "sun397", "imagenet")
"""Notebooks on the paper's data sets."""
CELL = re.compile(r"^```\{code-cell\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r'(?:nox -s run --|distill run) ([a-z_0-9]+)((?:\s+-p \w+ (?:"[^"]*"|[^\s`]+))*)')


def build(folder: Path, results: Path, *, strict: bool = True) -> subprocess.CompletedProcess:
    """Builds folder/book as `nox -s book` does, if it is strict."""
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book", "--all"]
    command += ["-W", "-n", "--keep-going"] if strict else []
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {"DISTILL_RESULTS": str(results), "PATH": paths, "JUPYTER_PLATFORM_DIRS": "1"}
    return subprocess.run(command, cwd=folder, env=os.environ | variables, capture_output=True, text=True)


@pytest.mark.slow
def test_pages_show_made_up_records_and_say_so(tmp_path: Path) -> None:
    """Those that are about runs, without the rest of the book, to which their references lead."""
    shutil.copytree(BOOK, tmp_path / "book", ignore=shutil.ignore_patterns("_build", "__pycache__", ".*", "slides"))
    pages = ("verdicts", "experiments/consistency", "experiments/patience")
    chapters = "".join(f"- file: {name}\n" for name in pages)
    (tmp_path / "book" / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n{chapters}")
    made_up.write_everything(tmp_path / "results")
    done = build(tmp_path, tmp_path / "results", strict=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    for page in pages:
        text = (tmp_path / "book" / "_build" / "html" / f"{page}.html").read_text()
        assert "made-up" in text and "no device" in text and "No runs." not in text, page
        assert "Traceback" not in text, page


CONNECTED = """
import json
from ipykernel.connect import get_connection_info
assert json.loads(get_connection_info())["transport"] == "ipc"  # of TCP ports two pages may be given the same
"""


@pytest.mark.slow
def test_a_failing_cell_fails_the_build(tmp_path: Path) -> None:
    """With the book's own configuration, and more than the five pages from which on Sphinx uses several processes."""
    (tmp_path / "book").mkdir()
    for name in ("_config.yml", "references.bib"):
        shutil.copy(BOOK / name, tmp_path / "book" / name)
    shutil.copytree(BOOK / "_ext", tmp_path / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    others = [f"page{number}" for number in range(6)]
    for name in others:
        (tmp_path / "book" / f"{name}.md").write_text(f"# {name}\n")
    chapters = "".join(f"- file: {name}\n" for name in others)
    (tmp_path / "book" / "_toc.yml").write_text(f"format: jb-book\nroot: page\nchapters:\n{chapters}")
    header = (BOOK / "index.md").read_text().split("# ")[0]
    (tmp_path / "book" / "page.md").write_text(f"{header}# Page\n\n```{{code-cell}}\n{CONNECTED}\n1 / 0\n```\n")
    done = build(tmp_path, tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "ZeroDivisionError" in said and "AssertionError" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "index",
        *("idea/function_matching", "idea/consistency", "idea/mixup", "idea/patience"),
        *("idea/silent_bugs", "idea/theory"),
        "play/playground",
        *(
            "verdicts",
            "stored",
            "rerun",
            "performance",
            "eight_gpus",
            "many_machines",
            "reference/paper",
            "reference/status",
        ),
    ],
)
def test_pages_run_without_records(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, in order, with an empty results folder; operations, which take long to count, are made up."""
    for role in ("student", "teacher"):
        monkeypatch.setattr(cost, f"{role}_operations", lambda recipe: 1e10)
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    monkeypatch.chdir((BOOK / page).parent)
    glued = types.SimpleNamespace(glue=lambda name, value, display: None)
    monkeypatch.setitem(sys.modules, "myst_nb", glued)
    namespace: dict = {}
    cells = [re.sub(r"\A(:[^\n]*\n)+", "", cell) for cell in CELL.findall((BOOK / f"{page}.md").read_text())]
    assert cells
    for cell in cells:
        exec(compile(cell, f"{page}.md", "exec"), namespace)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHAPTERS, *SETS])
def test_notebooks_of_the_book_run_without_records(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the book's build runs them: nothing is trained, and a figure without runs says so."""
    for role in ("student", "teacher"):
        monkeypatch.setattr(cost, f"{role}_operations", lambda recipe: 1e10)
    monkeypatch.setenv("DISTILL_RESULTS", str(tmp_path))
    monkeypatch.setenv(running.READ_ONLY, "1")
    monkeypatch.chdir(BOOK / "experiments")
    namespace: dict = {}
    for cell in json.loads((BOOK / "experiments" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), namespace)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*CHAPTERS, *SETS])
def test_chapters_have_what_a_reader_expects_of_one(name: str) -> None:
    """Objectives, a prediction, runs, what was seen here and in the paper, limits, what to keep, and exercises."""
    cells = json.loads((BOOK / "experiments" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    trains = "segmentation_training.run(" if name == "dense" else "experiments.run("
    parts = ["After this chapter you can", "**Cost**", "Predict first", trains, "tables.source("]
    own = ["## Paper and here", "## What it costs", "## The data", "paper_numbers.show("]
    parts += own if name in SETS else ["## What we saw", "## What the paper saw", "## Limits"]
    for part in (*parts, "Keep in mind", "```{exercise}"):
        assert part in text, part
    figures = [cell["metadata"]["mystnb"] for cell in cells if "mystnb" in cell["metadata"]]
    assert figures and all(len(each["figure"]["caption"]) > 20 and len(each["image"]["alt"]) > 40 for each in figures)


def test_every_public_name_is_on_the_page_of_names() -> None:
    """Of packages that say which names are public, each of these; and every module of the method itself."""
    blocks = re.findall(
        r"^\.\. automodule:: (\S+)\n(?:   :members: (.*)\n)?", (BOOK / "reference/api.md").read_text(), re.M
    )
    listed = {module: set(filter(None, members.split(", "))) for module, members in blocks}
    for name in ("datasets", "experiments", "recipes", "teachers", "train"):
        package = importlib.import_module(f"distill_lib.{name}")
        assert listed[package.__name__] == set(package.__all__), name
    figures = importlib.import_module("distill_lib.figures").__all__
    others = [f"figures.{name}" for name in figures] + ["views", "losses", "optim", "records", "models", "errors"]
    assert {f"distill_lib.{name}" for name in others} <= set(listed)


def test_the_page_of_verdicts_is_short() -> None:
    """Its words, without code and computed sentences."""
    assert len(CELL.sub("", (BOOK / "verdicts.md").read_text()).split()) < 800


def test_no_page_imports_the_training_loop() -> None:
    for path in PAGES:
        cells = "\n".join(CELL.findall(path.read_text()))
        assert not re.search(r"import .*\btrain\b|distill_lib\.train|train\.fit", cells), path.name


def test_errors_that_are_explained_are_raised() -> None:
    """What the page on troubles quotes before its tables is said somewhere in the library, as far as it is ours."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "distill_lib").rglob("*.py")]
    said = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))
    page = (BOOK / "troubleshooting.md").read_text(encoding="utf-8").split("## It runs, and")[0]
    quoted = re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^(`.*)\n: ", page, flags=re.MULTILINE)))
    foreign = {"RESOURCE_EXHAUSTED", "Out of memory", "Couldn't find output tile sizes"}
    pieces = [piece.strip(" ,;()") for text in quoted if text not in foreign for piece in text.split("...")]
    assert len(pieces) > 40
    patterns = {piece: re.sub(r"^unknown\\ ", r"unknown( |\\(f?\")", re.escape(piece)) for piece in pieces}
    assert [piece for piece, pattern in patterns.items() if not re.search(pattern, said)] == []


@pytest.mark.parametrize("path", [*PAGES, *EXPERIMENTS], ids=lambda path: path.stem)
def test_commands_name_what_there_is(path: Path) -> None:
    """Sessions of nox, commands, modules, notebooks, and their parameters, data sets and presets."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"])
    text = text.replace("\\\n", "")
    sessions = re.findall(r"@nox\.session(?:\(name=\"(\w+)\"\))?\ndef (\w+)", (ROOT / "noxfile.py").read_text())
    assert set(re.findall(r"nox -s (\w+)", text)) <= {name or function for name, function in sessions}
    for command in re.findall(r"(?:^|`)distill ([a-z][^`\n]*)", text, flags=re.MULTILINE):
        cli.parse(shlex.split(command))
    modules = set(re.findall(r"python -m (distill_lib[\w.]*\w)", text))
    assert {name for name in modules if importlib.util.find_spec(name) is None} == set()
    for name, rest in COMMAND.findall(text):
        given = dict(re.findall(r'-p (\w+) ("[^"]*"|[^\s`]+)', rest))
        assert set(given) <= set(notebooks.parameters_of(notebooks.find(name, ROOT))), (name, given)
        dataset = given.get("dataset", name if name in SETS else "fashion")
        if not dataset.startswith("folder:"):
            known = {"", "PRESET", *recipes.variants(dataset), *(plans.EXPERIMENTS if name in SETS else ())}
            assert given.get("variant", "") in known, (name, given)
