"""What the project says in words: one spelling, and no number that a run should have said."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [path for kind in ("md", "ipynb") for path in ROOT.glob(f"book/**/*.{kind}") if "_build" not in path.parts]
TASKS = ROOT / "book" / "teaching"  # sets times, marks and questions about runs that nobody has made
PAPERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
FOLDERS = ("distill_lib/**", "benchmarks/**", "book/*")
CODE = sorted([*(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.py")), ROOT / "noxfile.py"])
# Front matter, code in fences and in lines, formulas, targets of links, options of directives, labels of exercises, how
# long a page takes to read
NO_PROSE = re.compile(
    r"\A---\n.*?\n---\n|^ *(`{3,})(?:\{(?:code-cell|math|eval-rst)\}|\w+)[^\n]*\n.*?^ *\1 *$|\$\$.*?\$\$|\]\([^)]*\)"
    r"|`+[^`\n]+`+|\$[^$\n]+\$|^:[\w-]+:.*?$|\bex-[\w-]+|\*(?:Reading )?[Tt]ime\*: [^.]*\.",
    re.DOTALL | re.MULTILINE,
)
AMERICAN = re.compile(
    r"\b\w*(?:behavior|neighbor|color|favor|honor|labeled|labeling|modeled|modeling|catalog(?!ue)|gray|center|defense)\w*"
    r"|\b(?!resiz|oversiz)[a-z]{3,}(?:iz|yz)(?:e[drs]?|ers|ing|ations?)\b|\bdistills\b",
    re.IGNORECASE,
)
# A number with a unit in which results are given; not of a product, such as a grid of 4 x 5 points, nor the level of an
# interval
MEASURED = re.compile(
    r"(?<![\w.x-])(?<!x )(?!95 % interval)\d[\d,.]*\s?"
    r"(?:%|percent\b|per cent\b|(?:percentage )?points?\b|(?:milli)?seconds?\b|m?s\b|min(?:utes?)?\b"
    r"|h(?:ours?)?\b|images/s|images a second)"
)
# Paragraphs that may: what a notebook costs, roughly, for who wants to run it; and what others have measured
MAY_MEASURE = re.compile(r"\A\*\*Cost\*\*|\{cite|\bexercise\}|\bsolution\}")


def prose(path: Path) -> str:
    """The words of a page: no code, no formulas, no addresses."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return NO_PROSE.sub(" ", text)


def docstrings(path: Path) -> str:
    """All docstrings of a file, without code, titles in quotes, names of arguments and attributes."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
    text = "\n".join(ast.get_docstring(node) or "" for node in nodes)
    return re.sub(r'`+[^`]+`+|"[^"]{1,90}"|^ +\w+: |\.\w+', " ", text, flags=re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PAGES, *PAPERS, *CODE], ids=name)
def test_the_spelling_is_british(path: Path) -> None:
    text = docstrings(path) if path.suffix == ".py" else re.sub(r'"[^"\n]+"', " ", prose(path))  # titles in quotes
    assert [word[0] for word in AMERICAN.finditer(text)] == []


@pytest.mark.parametrize("path", [path for path in PAGES if TASKS not in path.parents], ids=name)
def test_no_measurement_is_typed(path: Path) -> None:
    """Cells compute what was measured, from records, so that a sentence changes with the runs."""
    paragraphs = [text.strip() for text in re.split(r"\n\s*\n", prose(path))]
    assert [text[:200] for text in paragraphs if MEASURED.search(text) and not MAY_MEASURE.search(text)] == []


@pytest.mark.parametrize(
    "path", [path for path in PAGES if path.suffix == ".md" and TASKS not in path.parents], ids=name
)
def test_no_length_of_a_run_is_typed(path: Path) -> None:
    """On pages about runs that others than their notebook have made."""
    assert re.findall(r"\d\s?(?:epochs|steps|seeds)\b", prose(path)) == []


def test_each_reference_says_where_to_read_it() -> None:
    entries = re.split(r"(?m)^(?=@)", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"))
    without = [entry for entry in entries if entry.startswith("@") and not re.search(r"(?m)^ *(?:doi|url) = ", entry)]
    assert len(entries) > 20 and without == []


@pytest.mark.parametrize(
    ("text", "measured"),
    [
        ("It gets 89.3 % right.", True),
        ("They are 1.5 points apart.", True),
        ("A step takes 22 ms.", True),
        ("in 3 minutes", True),
        ("a grid of 4 x 5 points", False),
        ("trained for 300 epochs with seed 3", False),
        ("R50x1, of 224 pixels", False),
        ("Table 3 says", False),
    ],
)
def test_a_measurement_is_known_by_its_unit(text: str, measured: bool) -> None:
    assert bool(MEASURED.search(text)) == measured


@pytest.mark.parametrize("word", ["normalized", "optimizer", "behavior", "colors", "initialization", "labeled"])
def test_american_forms_are_known(word: str) -> None:
    assert AMERICAN.search(f"the {word} here")


@pytest.mark.parametrize(
    "word", ["size", "prize", "sized", "horizontal", "parameter", "colour", "normalised", "resized"]
)
def test_other_words_are_not(word: str) -> None:
    assert not AMERICAN.search(f"the {word} here")
