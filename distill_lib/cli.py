"""The command line: `distill COMMAND`, or `python -m distill_lib COMMAND`.

Each command has a function that declares its arguments and one that runs it and imports what it needs itself.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill_lib.errors import DistillError, Parser, command_line, unknown


@command_line
def main(arguments: Sequence[str] | None = None) -> int | None:
    """Runs the command that arguments, or the process's, name, or prints help; returns the exit code, None for 0."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        _parser().print_help()
        return 1
    options = parse(words)
    return options.run(options)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Reads a command, at least its name, without running it; `run` of its options takes them. DistillError if none."""
    if words[0] not in (*COMMANDS, "-h", "--help"):
        raise unknown("command", words[0], COMMANDS)
    options, rest = _parser().parse_known_args(words)
    if rest:
        options.parser.error(f"unknown argument {rest[0]!r}")
    return options


def _parser() -> argparse.ArgumentParser:
    epilog = "`distill COMMAND --help` explains a command."
    parser = Parser(prog="distill", description="Patient and consistent knowledge distillation.", epilog=epilog)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (about, declare, run) in COMMANDS.items():
        made = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        made.set_defaults(parser=made, run=run)
        declare(made)
    return parser


def _declare_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", nargs="?", help="a name in book/experiments, or a path ending in .ipynb")
    parser.add_argument("--list", action="store_true", help="print the notebooks with what each costs")
    _declare_parameters(parser, "a parameter of the notebook")
    parser.add_argument("--output", type=Path, help="where the executed copy goes (results/notebooks/NAME.ipynb)")
    _declare_log(parser)


def _run(options: argparse.Namespace) -> None:
    from distill_lib import records
    from distill_lib.experiments import notebooks

    if options.list:
        print(notebooks.listing())
        return
    if options.notebook is None:
        raise DistillError("say which notebook: `distill run NOTEBOOK`. `distill run --list` prints them.")
    if options.log:
        os.environ["DISTILL_LOG"] = options.log
    path = notebooks.find(options.notebook)
    output = options.output or records.find_results() / "notebooks" / notebooks.copy_name(path)
    notebooks.run(path, output, _parameters(options))


def _declare_sweep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", help="a name in book/experiments, or a path ending in .ipynb")
    parser.add_argument("--scheduler", default="local", help="tcp://HOST:PORT of a Dask scheduler, or local (default)")
    parser.add_argument("--workers", type=int, help="on this machine (one for each GPU, else one)")
    _declare_parameters(parser, "a parameter; a list for one that is no list is a run for each value")
    _declare_log(parser)


def _sweep(options: argparse.Namespace) -> None:
    from distill_lib.experiments import cluster

    planned = cluster.jobs(options.notebook, _parameters(options), options.log)
    print(cluster.sweep(planned, options.scheduler, options.workers))


def _declare_presets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", nargs="?", help="a data set with presets; all of them if none is named")
    parser.add_argument("--device", help="such as A100, or as records name it; an unknown one lists those known")


def _presets(options: argparse.Namespace) -> None:
    from distill_lib.report import cost, paper_numbers

    print(paper_numbers.as_text(options.dataset, options.device or cost.DEVICE))


def _declare_data(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    about = "say of each set whether it is there, and how to get it"
    checking = actions.add_parser("check", help=about, description=about)
    checking.add_argument("names", nargs="*", metavar="NAME", help="data sets; all if none is named")
    checking.set_defaults(parser=checking, prepare=False)
    about = "download sets with TFDS, and prepare them"
    preparing = actions.add_parser("prepare", help=about, description=about)
    preparing.add_argument("names", nargs="+", metavar="NAME", help="data sets")
    preparing.add_argument("--register-checksums", action="store_true", help="accept downloads that TFDS does not know")
    preparing.set_defaults(parser=preparing, prepare=True)


def _data(options: argparse.Namespace) -> int:
    from distill_lib.datasets import names, prepare

    ready = True
    for name in options.names or names():
        if options.prepare:
            prepare.prepare(name, register_checksums=options.register_checksums)
        status = prepare.status(name)
        ready &= status.present
        notes = () if status.present else (f"  Note: {hint}" for hint in status.hints)
        print("\n".join([*status.lines(), *notes]))
    return 0 if ready else 1


def _declare_teachers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="teachers to have at hand; none prints all there are")
    parser.add_argument("--folder", type=Path, help="look here alone, and download into it")


def _teachers(options: argparse.Namespace) -> None:
    from distill_lib.teachers import published

    if not options.names:
        print(published.table(options.folder))
    for name in options.names:
        print(published.resolve(name, folder=options.folder))


def _declare_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help="a student.npz, or the name of a teacher")
    parser.add_argument("dataset", help="a data set, such as imagenet_v2")
    parser.add_argument("--teacher", help="another network, that the first is compared with")
    parser.add_argument("--split", default="test", help="train, validation or test (the default)")
    parser.add_argument("--resolution", type=int, help="pixels, for networks that do not know their own")
    parser.add_argument("--side", type=float, help="of the central square, as a fraction of the shorter side")
    parser.add_argument("--limit", type=int, help="the first so many images only")
    parser.add_argument("--mock", action="store_true", help="made-up images: the numbers mean nothing")


def _evaluate(options: argparse.Namespace) -> None:
    from distill_lib.evaluation import evaluate

    names = ("teacher", "split", "resolution", "side", "limit", "mock")
    judged = evaluate.evaluate(options.network, options.dataset, **{name: getattr(options, name) for name in names})
    print(("made-up images; the numbers mean nothing\n" if options.mock else "") + evaluate.table(judged))


def _declare_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="RUN", help="a run's folder, a student.npz, or the name of a teacher")
    parser.add_argument("--to", required=True, choices=("safetensors", "onnx", "stablehlo"), help="format of the file")
    parser.add_argument("--output", type=Path, help="the file (beside the student, else in the working folder)")
    parser.add_argument("--resolution", type=int, help="pixels, for networks that do not know their own")


def _export(options: argparse.Namespace) -> None:
    from distill_lib import export

    print(export.export(options.network, options.to, options.output, options.resolution))


def _declare_soft_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="where the answers go; one that was begun is completed")
    parser.add_argument("--teacher", help="any teacher, or MODULE:FUNCTION of images to logits, whatever computes them")
    parser.add_argument("--keep", type=int, default=10, metavar="K", help="logits that are kept of each answer (10)")
    parser.add_argument("--loading", default="auto", help="device, stream or auto")
    _declare_parameters(parser, "dataset (fashion), variant (quick), or a setting")


def _soft_labels(options: argparse.Namespace) -> None:
    from distill_lib import recipes
    from distill_lib.train import record_soft_labels

    settings = {"dataset": "fashion", "variant": "quick", "teacher": options.teacher} | _parameters(options)
    made = record_soft_labels.store(recipes.get(**settings), options.folder, options.keep, loading=options.loading)
    print(
        f"{made.folder}: {made.steps} steps, {made.views} views, {made.kept} logits of each, "
        f"{made.bytes_per_view:.1f} bytes a view, {made.bytes / 2**20:.1f} MiB"
    )


def _declare_records(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", nargs="?", help="a folder of results/, such as fashion_quick; none lists them")
    parser.add_argument("--claims", action="store_true", help="what the records say of the paper's claims, instead")
    parser.add_argument("--figure", type=Path, help="save the first figure of the whole study here, instead")


def _records(options: argparse.Namespace) -> None:
    if options.figure:
        from distill_lib.figures import runs

        runs.save_patience(options.figure)
        return
    from distill_lib.report import aggregate, claims

    if options.claims:
        print(claims.as_text())
    elif options.study is None:
        print(aggregate.studies())
    else:
        print(aggregate.summarise(options.study, mock=options.study.endswith("_smoke")))


def _declare_bench(parser: argparse.ArgumentParser) -> None:
    about = "name of a benchmark, and its own options; none lists them"
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=about)


def _bench(options: argparse.Namespace) -> None:
    project = Path(__file__).parents[1]
    if not (project / "benchmarks" / "runner.py").is_file():
        raise DistillError("benchmarks are in this project's repository alone: `pip install --editable .` there.")
    sys.path.insert(0, str(project))
    from benchmarks import runner

    runner.main(options.rest)


def _declare_log(parser: argparse.ArgumentParser) -> None:
    about = "draw the metrics of runs there as they come, in results/tensorboard"
    parser.add_argument("--log", choices=("tensorboard",), help=about)


def _declare_parameters(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help=about)


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    from distill_lib.values import parse_value

    return {name: parse_value(value) for name, value in options.p}


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], Any]]] = {
    "run": ("run an experiment notebook, with parameters", _declare_run, _run),
    "sweep": ("run a notebook with many values, over Dask's workers", _declare_sweep, _sweep),
    "presets": ("print presets, and what they cost on a device", _declare_presets, _presets),
    "data": ("check and prepare data sets", _declare_data, _data),
    "teachers": ("list published teachers, or have them at hand", _declare_teachers, _teachers),
    "evaluate": ("judge a student or a teacher on a data set", _declare_evaluate, _evaluate),
    "export": ("write a student for other programs", _declare_export, _export),
    "soft-labels": ("store a teacher's answers, for students to replay", _declare_soft_labels, _soft_labels),
    "records": ("print what a study measured", _declare_records, _records),
    "bench": ("run a benchmark", _declare_bench, _bench),
}
