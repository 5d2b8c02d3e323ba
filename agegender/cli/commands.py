"""The command `agegender` and its subcommands, which `train.py`, `predict.py` and `python -m ...` run as well."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from agegender.distributed.launcher import LIGHTNING_CHILD_FLAG, detect_launcher, script
from agegender.errors import EXIT_ERROR, EXIT_USAGE, did_you_mean
from agegender.system.signals import exit_at_once, handling, ignore, install
from agegender.system.terminal import prepare_output
from agegender.version import __version__

if TYPE_CHECKING:  # Hydra is imported when a command starts, torch after its settings were checked, for a fast `--help`
    from omegaconf import DictConfig


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        summary: One-line description, for `--help`.
        example: Example of its settings, for `--help`.
        function: The function that is called with the composed config, `conf/<name>.yaml`.
        signature: Dotted name of the function whose arguments are the settings; empty if there is no such function.
    """

    summary: str
    example: str
    function: Callable[[DictConfig], Any]
    signature: str = ""


@contextmanager
def importing(torch: bool = True) -> Iterator[None]:
    """Import a command's modules within this context.

    A signal ends the process at once: nothing has begun, and an exception could be lost or replaced in an import.

    Args:
        torch: Print on a terminal that PyTorch is being imported, which takes seconds.
    """
    launch = detect_launcher()
    shown = "torch" not in sys.modules and (launch is None or launch.rank == 0) and sys.stderr.isatty()
    if torch and shown:
        print("loading PyTorch and Lightning ...", file=sys.stderr)
    with handling(exit_at_once):
        yield


def train(config: DictConfig) -> float:
    """Run a training and return its best validation score, the objective of a sweep."""
    with importing():
        from agegender.sweeps.continuation import prepare_job, quiet_job
        from agegender.training.train import train

    score = prepare_job(config)
    with quiet_job():
        return train(config) if score is None else score


def predict(config: DictConfig) -> None:
    """Predict age and gender of images; exit with an error if an image could not be answered."""
    with importing(config.backend == "torch"):
        from agegender.cli.main import call_with_config
        from agegender.prediction.predict import predict

    if not call_with_config(predict, config):
        sys.exit(EXIT_ERROR)


def explore(config: DictConfig) -> None:
    """Write a page about the data, and print its path."""
    with importing(torch=False):
        from agegender.cli.main import call_with_config
        from agegender.evaluation.explore.explore import explore

    print(f"page: {call_with_config(explore, config)}")


def report(config: DictConfig) -> None:
    """Write a run's report."""
    with importing(torch=False):
        from agegender.cli.main import call_with_config
        from agegender.evaluation.report.report import report

    call_with_config(report, config)


def compare(config: DictConfig) -> None:
    """Compare two runs face by face."""
    with importing():
        from agegender.cli.main import call_with_config
        from agegender.evaluation.compare.compare import compare

    call_with_config(compare, config)


def robustness(config: DictConfig) -> None:
    """Measure a run on corrupted test images, and print the path of the page."""
    with importing():
        from agegender.cli.main import call_with_config
        from agegender.evaluation.robustness.robustness import measure_robustness

    print(f"page: {call_with_config(measure_robustness, config)}")


def pack(config: DictConfig) -> None:
    """Pack faces into shards, and print their folder and size."""
    with importing(torch=False):
        from agegender.cli.main import call_with_config
        from agegender.data.streaming.pack import pack

    folder = call_with_config(pack, config)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{size / 1e6:.1f} MB in {folder}; train on it with: {script('train')} data=streaming data.dir={folder}")


def export(config: DictConfig) -> None:
    """Export a network to ONNX, or as a page that needs no server."""
    with importing():
        from agegender.cli.export import export
        from agegender.cli.main import call_with_config

    call_with_config(export, config)


def serve(config: DictConfig) -> None:
    """Serve the page and the HTTP API until Ctrl-C."""
    try:
        with importing(config.backend == "torch"):
            from agegender.cli.main import call_with_config
            from agegender.errors import missing_extra
            from agegender.web.server import serve  # imports the packages of the extra `web`
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn", "python_multipart", "h11"):
            raise
        raise missing_extra("the page", error, "web") from None
    call_with_config(serve, config)


def bundle(config: DictConfig) -> None:
    """Bundle a run's best weights, and print their size and the run."""
    with importing():
        from agegender.cli.main import call_with_config
        from agegender.weights.bundle import bundle_command

    run, out = call_with_config(bundle_command, config)
    files = [file for file in out.iterdir() if file.is_file()] if out.is_dir() else [out]
    print(f"{out}: {sum(file.stat().st_size for file in files) / 1e6:.2f} MB, the weights of {run}")


def schema(config: DictConfig) -> None:
    """Write JSON Schemas of the configs."""
    with importing():
        from agegender.cli.main import call_with_config
        from agegender.cli.schema import write_schemas
        from agegender.config.overrides import config_dir

    functions = {name: command.signature for name, command in COMMANDS.items() if command.signature}

    def write(out: str) -> None:
        write_schemas(out, functions, config_dir(sys.argv[1:]))

    call_with_config(write, config)


COMMANDS = {
    "train": Command("train and test a model", "experiment=quickstart", train),
    "predict": Command(
        *("predict age and gender of the faces in images", "img=photo.jpg", predict),
        "agegender.prediction.predict.predict",
    ),
    "explore": Command(
        *("describe a folder of face images on one page", "data=synthetic", explore),
        "agegender.evaluation.explore.explore.explore",
    ),
    "report": Command(
        *("report a run's results on its test faces", "run=logs/quickstart", report),
        "agegender.evaluation.report.report.report",
    ),
    "compare": Command(
        *("compare two runs on the same test faces", "run=logs/a,logs/b", compare),
        "agegender.evaluation.compare.compare.compare",
    ),
    "robustness": Command(
        *("measure a run under noise, blur, ...", "run=logs/quickstart", robustness),
        "agegender.evaluation.robustness.robustness.measure_robustness",
    ),
    "pack": Command(
        *("pack faces into shards for data=streaming", "data.dir=faces out=shards", pack),
        "agegender.data.streaming.pack.pack",
    ),
    "export": Command(
        *("export a network to ONNX, or as a web page", "out=model.onnx", export),
        "agegender.cli.export.export",
    ),
    "serve": Command(
        *("predict in a browser and over HTTP", "port=7860", serve),
        "agegender.web.server.serve",
    ),
    "bundle": Command(
        *("bundle a run's weights for distribution", "run=logs/small out=small.ckpt", bundle),
        "agegender.weights.bundle.bundle_command",
    ),
    "schema": Command("write JSON Schemas of the configs, for editors", "out=.agegender/schema", schema),
}


def start(name: str) -> None:
    """Run a subcommand with the settings in `sys.argv`."""
    is_open = prepare_output(keep_going=name != "predict")
    if not is_open and name == "predict" and not any(item.startswith("out=") and item != "out=-" for item in sys.argv):
        print("error: standard output is closed: set out=predictions.csv", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    install(exit_at_once)  # before the command handles signals itself
    from agegender.cli.main import run_command
    from agegender.config.overrides import image_overrides, path_overrides, report_overrides
    from agegender.runs.resume import train_overrides

    rewrites = {"train": train_overrides, "predict": image_overrides}
    rewrites |= dict.fromkeys(("report", "compare"), report_overrides)
    try:
        run_command(COMMANDS[name].function, name, rewrites.get(name, path_overrides))
    finally:
        ignore()  # in the interpreter's last moments


def main() -> None:
    """Run the subcommand that is the first argument."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        sys.exit(0 if arguments else EXIT_USAGE)
    if arguments[0] == "--version":
        print(f"agegender {__version__}")
    elif arguments[0] in ("-sc", "--shell-completion"):
        _complete()
    elif arguments[0] in COMMANDS:
        sys.argv[1:] = arguments[1:]
        start(arguments[0])
    elif any(argument.startswith(LIGHTNING_CHILD_FLAG) for argument in arguments):
        start("train")  # Lightning launches its child processes with Hydra's overrides, without the subcommand
    else:
        print(f"error: {arguments[0]} is not a command; {did_you_mean(arguments[0], COMMANDS)}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def _help() -> str:
    commands = (f"  {name:11}{command.summary:50}{command.example}" for name, command in COMMANDS.items())
    return "\n".join(
        (
            "usage: agegender <command> [name=value ...]",
            "",
            *commands,
            "",
            "agegender <command> --help lists the command's settings; agegender --version prints the version.",
            "Your own configs: ./conf (conf/experiment/mine.yaml is experiment=mine), or a folder by --config-dir.",
        )
    )


def _complete() -> None:
    """Complete the first word with the subcommands, and later words with Hydra's completion of the subcommand."""
    line = os.environ.get("COMP_LINE", "")
    _, _, rest = line.lstrip().partition(" ")
    name, _, settings = rest.lstrip().partition(" ")
    is_query = any(argument.startswith("query=") for argument in sys.argv[1:])
    if is_query and not (name in COMMANDS and rest.lstrip().startswith(f"{name} ")):
        separator = "\n" if "query=fish" in sys.argv else " "
        print(separator.join(each for each in COMMANDS if each.startswith(name)))
        return
    os.environ["COMP_LINE"] = f"agegender {settings}"
    start(name if name in COMMANDS else "train")
