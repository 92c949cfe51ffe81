"""The commands of this project: `nox -s study`, `nox -s tests`, and the others that `nox --list` shows.

All sessions share one environment, .nox/distill. It is made once, from requirements.txt, and again when that file or
pyproject.toml changes. Beside it `nox -s compile` has one with the compilers of TPUs and GPUs, .nox/compilers.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import NoReturn

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "none"

ROOT = Path(__file__).parent
EXPERIMENTS = ROOT / "book" / "experiments"
FIRST_PAGE = ROOT / "book" / "_build" / "html" / "index.html"
WITH_TESTS = os.pathsep.join([str(ROOT), str(ROOT / "tests")])  # where faults and compiled programs are tried

BENCHMARKS = ("sweep", "step", "soft_labels", "loop", "optimizers")
COMPARISONS = (
    "ablations", "capacity", "families", "few_photographs", "how_much_teacher", "initialization", "labels", "mobilenet",
    "optimizers", "out_of_domain", "patience", "resolutions_and_ensembles",
)  # fmt: skip
SMOKE: dict[str, list[list[str]]] = {  # fewer runs than the notebooks' own lists have; each set has a notebook
    **{name: [["-p", "seeds", "[0]"]] for name in COMPARISONS},
    "consistency": [["-p", "policies", "[labels, same/ic]"]],
    "sweep": [["-p", "policies", "[mix]", "-p", "learning_rates", "[1e-3]", "-p", "weight_decays", "[1e-4]"]],
    "dense": [["-p", "seeds", "[0]", "-p", "policies", "[fix/rs, ind/ic]"]],
    "distill": [["-p", "dataset", name] for name in ("fashion", "fashion_mnist")],
    "imagenet": [["-p", "loading", "stream"]],
    "live_demo": [["-p", "images", "32", "-p", "steps", "8", "-p", "results", "None"]],
    "quantize": [["-p", "policies", "[labels, same/ic]", "-p", "images", "32", "-p", "further", "[0]"]],
    "robustness": [["-p", "policies", "[labels, same/ic]", "-p", "images", "32"]],
    "silent_bugs": [["-p", "seeds", "[0]"]],
    "support": [["-p", "seeds", "[0]", "-p", "images", "[32]", "-p", "steps", "[8]"]],
    "teacher": [[], ["-p", "dataset", "flowers"]],
}
ENVIRONMENT = {
    "JUPYTER_PLATFORM_DIRS": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


@nox.session
def study(session: nox.Session) -> None:
    """A study of real images, and the book with it, in at most 10 minutes; `-- medium` and `-- long` take more."""
    python = environment(session)
    variant = session.posargs[0] if session.posargs else "quick"
    run_notebook(session, python, "consistency", "-p", "dataset", "fashion", "-p", "variant", variant)
    build_book(session, python)
    run(session, python, "-m", "distill_lib", "records", f"fashion_{variant}")
    print(f"\nThe book's first page: {FIRST_PAGE}", flush=True)


@nox.session(name="run")
def run_one(session: nox.Session) -> None:
    """One notebook, parameters passed on: nox -s run -- distill -p dataset flowers -p variant fast."""
    if not session.posargs:
        fail(f"say which notebook: nox -s run -- NAME -p PARAMETER VALUE. Valid: {', '.join(experiments())}.")
    run_notebook(session, environment(session), *session.posargs)


@nox.session
def book(session: nox.Session) -> None:
    """The book, from the records in results/."""
    build_book(session, environment(session))
    print(f"\nThe book's first page: {FIRST_PAGE}", flush=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks, as medians and ratios in one run; `-- NAME` runs one of them, and its own options follow."""
    python = environment(session)
    for arguments in [session.posargs] if session.posargs else [[name] for name in BENCHMARKS]:
        run(session, python, "-m", "distill_lib", "bench", *arguments)


@nox.session
def onnx(session: nox.Session) -> None:
    """Exported networks in ONNX Runtime, in an environment of its own: the tests, and the benchmark `latency`."""
    python = environment(session, "onnx", dependency_group("onnx"))
    run(session, python, "-m", "pytest", "tests/test_export.py", "tests/benchmarks/test_latency.py")
    run(session, python, "-m", "distill_lib", "bench", "latency", *session.posargs)


@nox.session(name="compile")
def compile_programs(session: nox.Session) -> None:
    """The programs of a step, compiled and checked for TPU and H100 without having one; `-- quick` and `-- full`."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        fail("the compilers of TPUs and GPUs are packaged for Linux on x86-64: run it there.")
    arguments = ["-m", "compiled", *session.posargs, "--python", str(compilers(session))]
    with tempfile.TemporaryDirectory() as folder:  # a part of the programs is a check, and no record
        variables = {"DISTILL_RESULTS": folder} if "quick" in session.posargs else {}
        run(session, environment(session), *arguments, PYTHONPATH=WITH_TESTS, **variables)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, in up to four processes, or in one where files are named; the quick ones alone: `-- -m "not slow"`."""
    # files share what their fixtures make; tests/conftest.py says which come first
    several = ["-n", str(processes()), "--dist", "loadfile", "--no-loadscope-reorder"] if processes() > 1 else []
    named = any((ROOT / word.partition("::")[0]).exists() for word in session.posargs)
    run(session, environment(session), "-m", "pytest", *([] if named else several), *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Kills, full disks, damaged files and second processes, and what becomes of the work; `-- long` tries them all."""
    run(session, environment(session), "-m", "faults", *session.posargs, PYTHONPATH=WITH_TESTS)


@nox.session
def browser(session: nox.Session) -> None:
    """The built book as readers see it: HTML, and Chromium on a wide screen and a phone, light and dark, offline."""
    chromium, python = browsing(session)
    folder = "tests/browser"  # without tests/conftest.py, which is about JAX
    options = [f"--confcutdir={folder}", "-n", str(processes()), "--dist", "worksteal", folder]
    run(session, python, "-m", "pytest", *options, *session.posargs, CHROMIUM=chromium)


@nox.session
def pdf(session: nox.Session) -> None:
    """The built book as one file, book/_build/book.pdf: Chromium prints its pages in the order of the contents."""
    chromium, python = browsing(session)
    pages = re.findall(r"(?:root|file): (\S+)", (ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        printed = [Path(folder) / f"{number:03d}.pdf" for number in range(len(pages))]
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/own"]
        options += ["--no-pdf-header-footer", "--virtual-time-budget=10000"]  # the time is for formulas
        for page, path in zip(pages, printed, strict=True):
            address = (FIRST_PAGE.parent / f"{page}.html").as_uri()
            execute(session, chromium, *options, f"--print-to-pdf={path}", address)
        merge = (
            "import sys, pypdf; book = pypdf.PdfWriter(); [*map(book.append, sys.argv[2:])]; book.write(sys.argv[1])"
        )
        target = FIRST_PAGE.parents[1] / "book.pdf"
        execute(session, python, "-c", merge, target, *printed)
    print(f"\nThe book in one file: {target}", flush=True)


def browsing(session: nox.Session) -> tuple[str, Path]:
    """The system's Chromium, and the Python of an environment with what drives it; skips where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    paths = [path for name in names if (path := shutil.which(name))]
    if not paths:
        session.skip("there is no Chromium on this machine: install the package `chromium`.")
    if not FIRST_PAGE.is_file():
        fail("there is no book yet: `nox -s book` builds it.")
    pins = dependency_group("browser")
    return paths[0], made(session, "browser", " ".join(pins).encode(), [[*pins]])


@nox.session
def newest(session: nox.Session) -> None:
    """The tests with the newest JAX that is supported and that this Python can have; arguments go to pytest."""
    given = re.sub(r"^jax==.*$", "jax<0.13", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(given)
        installs: list[list[str | Path]] = [["-r", requirements], ["--no-deps", "--editable", ROOT]]
        python = made(session, "newest", given.encode(), installs)
    run(session, python, "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, and notebooks without outputs; `-- --fix` mends what can be mended."""
    python = environment(session)
    fix = "--fix" in session.posargs
    run(session, python, "-m", "ruff", "check", *(["--fix"] if fix else []))
    run(session, python, "-m", "ruff", "format", *([] if fix else ["--check"]))
    run(session, python, "-m", "mypy")
    check_notebooks(fix=fix)


@nox.session
def smoke(session: nox.Session) -> None:
    """Every experiment notebook, and every data set, on mock data, in minutes; leaves nothing behind."""
    python, mock = environment(session), ("-p", "variant", "smoke")
    runs = [(name, *arguments) for name in experiments() for arguments in SMOKE.get(name, [[]])]
    with tempfile.TemporaryDirectory() as folder, futures.ThreadPoolExecutor(processes()) as pool:
        started = [  # each with records of its own, since no two may train the same student at once
            pool.submit(run_notebook, session, python, name, *mock, *arguments, results=f"{folder}/{number}")
            for number, (name, *arguments) in enumerate(runs)
        ]
        try:
            futures.wait(started, return_when=futures.FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
        ended = [(name, run) for (name, *_), run in zip(runs, started, strict=True) if not run.cancelled()]
        if broken := [name for name, run in ended if run.exception()]:
            fail(f"{' and '.join(broken)} failed, for the reason above.")
        found = [json.loads(path.read_text()) for path in Path(folder).glob("*/*/*/run.json")]
    if not found or not all(record["mock"] for record in found):
        fail(f"{len(found)} records, of which not all are marked as mock.")
    print(f"{len(runs)} notebooks ran on mock data and wrote {len(found)} records.", flush=True)


@nox.session
def fashion(session: nox.Session) -> None:
    """The embedded images, made again from their original files and compared; `-- build --out DIR` keeps them."""
    run(session, environment(session), "tests/makers/fashion_build.py", *(session.posargs or ["verify"]))


def processes() -> int:
    """How many tests or notebooks run at once: some gigabytes each."""
    return min(os.cpu_count() or 1, 4)


def environment(session: nox.Session, name: str = "distill", extra: Sequence[str] = ()) -> Path:
    """The shared environment's Python; installs only if requirements.txt or pyproject.toml have changed."""
    if sys.version_info < (3, 11):  # noqa: UP036
        fail(f"Python 3.11 or newer is needed, but nox runs on {sys.version.split()[0]}: install nox with a newer one.")
    sources = [(ROOT / name).read_bytes() for name in ("requirements.txt", "pyproject.toml")]
    installs: list[list[str | Path]] = [["-r", ROOT / "requirements.txt", *extra], ["--no-deps", "--editable", ROOT]]
    python = made(session, name, b"\0".join(sources), installs)
    profile = python.parent.parent / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    # Kernels warn of plain TCP, and log their own end at Ctrl-C. The errors of cells do not pass through here.
    (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 'CRITICAL'\n")
    return python


def dependency_group(name: str) -> list[str]:
    """Its packages, pinned."""
    import tomllib  # not above: a Python that lacks it is to get as far as the message that it is too old

    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins: list[str] = content["dependency-groups"][name]
    return pins


def compilers(session: nox.Session) -> Path:
    """The Python of an environment with the compilers of TPUs and GPUs, without CUDA's libraries: 1.2 GB."""
    pins = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    step = [f"jax[tpu]=={pins['jax']}", *(f"{name}=={pins[name]}" for name in ("flax", "optax", "numpy"))]
    cuda = [f"jax-cuda12-{part}=={pins['jax']}" for part in ("plugin", "pjrt")] + ["nvidia-cuda-nvcc-cu12"]
    return made(session, "compilers", " ".join(step + cuda).encode(), [[*step], ["--no-deps", *cuda]])


def made(session: nox.Session, name: str, about: bytes, installs: list[list[str | Path]]) -> Path:
    """The Python of an environment in .nox, made anew where what it is about has changed."""
    folder = session.cache_dir.absolute().parent / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = hashlib.sha256(f"{ROOT} {sys.version_info[:2]}\0".encode() + about).hexdigest()
    stamp = folder / "installed"
    if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
        return python
    make: list[str | Path] = [sys.executable, "-m", "virtualenv", "--clear", "--no-periodic-update", folder]
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
    if uv := find_uv():
        make = [uv, "venv", "--clear", "--python", sys.executable, folder]
        install = [uv, "pip", "install", "--python", python, "--compile-bytecode"]  # kernels start 3 times faster
    session.log(f"making the environment with {'uv' if uv else 'pip'}, once; this can take some minutes")
    execute(session, *make)
    for packages in installs:
        execute(session, *install, *packages)
    stamp.write_text(wanted)
    return python


def find_uv() -> str | None:
    """The path of a uv that works, if there is one."""
    uv = shutil.which("uv")
    works = uv and subprocess.run([uv, "--version"], capture_output=True).returncode == 0
    return uv if works else None


def run_notebook(session: nox.Session, python: Path, *arguments: str, results: str | None = None) -> None:
    """Runs an experiment notebook; its records go to `results`, or where $DISTILL_RESULTS says."""
    variables = {"DISTILL_RESULTS": results} if results else {}
    run(session, python, "-m", "distill_lib", "run", *arguments, **variables)


def build_book(session: nox.Session, python: Path) -> None:
    """Builds the book; warnings and failing cells are errors; all pages are made, since records may have changed."""
    command, options = python.with_name("jupyter-book"), ["--all", "-W", "-n", "--keep-going"]
    run(session, command, "build", "book", *options, error="the book was not built; the reason is above.")


def run(session: nox.Session, program: Path, *arguments: str, error: str = "", **variables: str) -> None:
    """Runs a program of the shared environment, and ends nox with its exit code where it fails."""
    own = ENVIRONMENT | {
        "PATH": os.pathsep.join([str(program.parent), os.environ.get("PATH", "")]),
        "IPYTHONDIR": str(program.parent.parent / "ipython"),  # a user's own start-up files are not part of a study
    }
    if results := os.environ.get("DISTILL_RESULTS"):
        own["DISTILL_RESULTS"] = str(Path(results).absolute())
    execute(session, program, *arguments, error=error, **(own | variables))


def execute(session: nox.Session, *command: str | Path, error: str = "", **variables: str) -> None:
    """Runs a command; where it fails, its own message, or `error`, stays the last line that is seen."""
    session.log(" ".join(os.path.relpath(word, ROOT) if isinstance(word, Path) else word for word in command))
    own_end = functools.partial(end_with, os.getpid()) if sys.platform == "linux" else None
    code = subprocess.run(command, cwd=ROOT, env=os.environ | variables, preexec_fn=own_end).returncode
    if code < 0:
        fail(f"stopped by signal {-code}; the same command goes on where it was.", 128 - code)
    if code and error:
        fail(error, code)
    if code:
        sys.exit(code)


def end_with(parent: int) -> None:
    """Has Linux end this process with nox, so that no killed session trains on unseen; a kernel ends with it."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def fail(message: str, code: int = 1) -> NoReturn:
    """Ends nox with an error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def experiments() -> list[str]:
    """Names of the experiment notebooks."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.ipynb"))


def check_notebooks(*, fix: bool) -> None:
    """Stops if a notebook of the book holds outputs, or removes them."""
    for path in sorted((ROOT / "book").rglob("*.ipynb")):
        if "_build" in path.parts or ".ipynb_checkpoints" in path.parts:
            continue
        notebook = json.loads(path.read_text(encoding="utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        if not any(cell["outputs"] or cell["execution_count"] for cell in code):
            continue
        if not fix:
            fail(f"{path.relative_to(ROOT)} holds outputs: remove them with `nox -s lint -- --fix`.")
        for cell in code:
            cell |= {"outputs": [], "execution_count": None}
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
