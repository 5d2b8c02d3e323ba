"""The command `agegender` and its sub-commands; `train.py`, `predict.py` and `python -m ...` start the same ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from agegender.distributed.launcher import LIGHTNING_CHILD_FLAG, script
from agegender.errors import EXIT_ERROR, EXIT_USAGE, did_you_mean
from agegender.version import __version__

if TYPE_CHECKING:  # Hydra is imported when a command starts, and torch when its settings fit: `--help` needs neither
    from omegaconf import DictConfig


class Command(NamedTuple):
    """A sub-command.

    Attributes:
        summary: What it does, in one line.
        example: Its settings in a first use.
        function: What to do with its composed config, `conf/<name>.yaml`.
    """

    summary: str
    example: str
    function: Callable[[DictConfig], Any]


def train(config: DictConfig) -> float:
    """Runs one training; what it returns is what a sweep minimizes."""
    from agegender.training.train import train

    return train(config)


def predict(config: DictConfig) -> None:
    """Answers for the pictures; the exit code says whether each got its answer."""
    from agegender.cli.main import call_with_config
    from agegender.prediction.predict import predict

    if not call_with_config(predict, config):
        sys.exit(EXIT_ERROR)


def explore(config: DictConfig) -> None:
    """Describes the data on a page, and says where that is."""
    from agegender.cli.main import call_with_config
    from agegender.evaluation.explore.explore import explore

    print(f"page: {call_with_config(explore, config)}")


def report(config: DictConfig) -> None:
    """Writes a run's report."""
    from agegender.cli.main import call_with_config
    from agegender.evaluation.report.report import report

    call_with_config(report, config)


def robustness(config: DictConfig) -> None:
    """Measures a run under harmless changes, and says where its page is."""
    from agegender.cli.main import call_with_config
    from agegender.evaluation.robustness.robustness import measure_robustness

    print(f"page: {call_with_config(measure_robustness, config)}")


def pack(config: DictConfig) -> None:
    """Packs faces into shards, and says where."""
    from agegender.cli.main import call_with_config
    from agegender.data.streaming.pack import pack

    folder = call_with_config(pack, config)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{size / 1e6:.1f} MB in {folder}; train on it with: {script('train')} data=streaming data.dir={folder}")


def export(config: DictConfig) -> None:
    """Writes a network for ONNX Runtime."""
    from agegender.cli.main import call_with_config
    from agegender.prediction.export.export import export

    call_with_config(export, config)


def serve(config: DictConfig) -> None:
    """Serves the page until Ctrl-C."""
    from agegender.cli.main import call_with_config
    from agegender.errors import missing_extra

    try:
        from agegender.web.server import serve  # and with it torch and the web's packages
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("starlette", "uvicorn", "python_multipart", "h11"):
            raise
        raise missing_extra("the page", error, "web") from None
    call_with_config(serve, config)


def bundle(config: DictConfig) -> None:
    """Packs a run's best weights, and says how large they are."""
    from agegender.cli.main import call_with_config
    from agegender.weights.bundle import bundle_command

    out = call_with_config(bundle_command, config)
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


COMMANDS = {
    "train": Command("train and test a model", "experiment=quickstart", train),
    "predict": Command("tell age and gender from pictures", "img=photo.jpg", predict),
    "explore": Command("describe a folder of faces on one page", "data=synthetic", explore),
    "report": Command("show what a trained model does on its test faces", "run=logs/quickstart", report),
    "robustness": Command("measure it under noise, blur, ...", "run=logs/quickstart", robustness),
    "pack": Command("pack faces into shards for data=streaming", "data.dir=faces out=shards", pack),
    "export": Command("write a network for ONNX Runtime", "out=model.onnx", export),
    "serve": Command("predict in a browser and over HTTP", "port=7860", serve),
    "bundle": Command("pack a run's weights to pass them on", "run=logs/small out=small.ckpt", bundle),
}


def start(name: str) -> None:
    """Starts a sub-command with the settings in `sys.argv`."""
    from agegender.cli.main import run_command
    from agegender.config.overrides import image_overrides, path_overrides, report_overrides
    from agegender.runs.resume import train_overrides

    rewrites = {"train": train_overrides, "predict": image_overrides, "report": report_overrides}
    run_command(COMMANDS[name].function, name, rewrites.get(name, path_overrides))


def main() -> None:
    """Starts the sub-command that stands first on the command line."""
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        sys.exit(0 if given else EXIT_USAGE)
    if given[0] == "--version":
        print(f"agegender {__version__}")
    elif given[0] in ("-sc", "--shell-completion"):
        _complete()
    elif given[0] in COMMANDS:
        sys.argv[1:] = given[1:]
        start(given[0])
    elif any(argument.startswith(LIGHTNING_CHILD_FLAG) for argument in given):
        start("train")  # one of several processes: Lightning starts it with the arguments that Hydra saw
    else:
        print(f"error: {given[0]} is no command; {did_you_mean(given[0], COMMANDS)}", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def _help() -> str:
    shown = (f"  {name:11}{command.summary:50}{command.example}" for name, command in COMMANDS.items())
    return "\n".join(
        (
            "usage: agegender <command> [name=value ...]",
            "",
            *shown,
            "",
            "agegender <command> --help lists its settings; agegender --version says which release this is.",
            "Configs of your own are found in ./conf (conf/experiment/mine.yaml: experiment=mine) and in --config-dir.",
        )
    )


def _complete() -> None:
    """Answers Hydra's shell completion: for the first word with the sub-commands, after it as the sub-command would."""
    line = os.environ.get("COMP_LINE", "")
    _, _, rest = line.lstrip().partition(" ")
    name, _, settings = rest.lstrip().partition(" ")
    asks = any(argument.startswith("query=") for argument in sys.argv[1:])
    if asks and not (name in COMMANDS and rest.lstrip().startswith(f"{name} ")):
        between = "\n" if "query=fish" in sys.argv else " "
        print(between.join(each for each in COMMANDS if each.startswith(name)))
        return
    os.environ["COMP_LINE"] = f"agegender {settings}"
    start(name if name in COMMANDS else "train")
