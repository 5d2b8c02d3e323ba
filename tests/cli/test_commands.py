"""The command `agegender`: its subcommands, its help, and the scripts that start them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Outcome
from omegaconf import OmegaConf

from agegender.cli import commands
from agegender.cli.commands import COMMANDS
from agegender.distributed.launcher import script
from agegender.errors import EXIT_USAGE
from agegender.version import __version__

Run = Callable[..., Outcome]
MAIN = "agegender/__main__.py"
MODULES = {
    "explore": "agegender/evaluation/explore/__main__.py",
    "report": "agegender/evaluation/report/__main__.py",
    "compare": "agegender/evaluation/compare/__main__.py",
    "robustness": "agegender/evaluation/robustness/__main__.py",
    "pack": "agegender/data/streaming/__main__.py",
    "export": "agegender/prediction/export/__main__.py",
    "serve": "agegender/web/__main__.py",
    "bundle": "agegender/weights/__main__.py",
    "schema": "agegender/cli/__main__.py",
    "train": "train.py",
    "predict": "predict.py",
}


def test_help_lists_the_commands_on_one_screen(run_here: Run) -> None:
    shown = run_here(MAIN, "--help")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert len(lines) <= 24 and all(len(line) <= 120 for line in lines)
    assert all(f"\n  {name} " in shown.out for name in COMMANDS)
    assert run_here(MAIN).out == shown.out and run_here(MAIN).code == EXIT_USAGE
    assert run_here(MAIN, "--version").out == f"agegender {__version__}\n"


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("trian",)])
def test_help_and_version_import_neither_torch_nor_hydra(arguments: tuple[str, ...]) -> None:
    code = (
        f"import sys; sys.argv = ['agegender', *{list(arguments)!r}]\n"
        "from agegender.cli.commands import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "slow = {'torch', 'hydra', 'numpy', 'pydantic', 'PIL'} & set(sys.modules)\nassert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_command_names_the_nearest(run_here: Run) -> None:
    outcome = run_here(MAIN, "exprot", "out=x.onnx")
    assert (outcome.code, outcome.err) == (EXIT_USAGE, "error: exprot is not a command; did you mean export?\n")


def test_every_command_has_a_config_a_script_and_its_name(run_here: Run) -> None:
    assert set(COMMANDS) == set(MODULES)
    configs = {file.stem for file in (ROOT / "conf").glob("*.yaml")}
    assert configs == set(COMMANDS)
    for name in COMMANDS:
        assert OmegaConf.load(ROOT / "conf" / f"{name}.yaml").hydra.job.name == name


@pytest.mark.parametrize("name", MODULES)
def test_script_and_subcommand_run_the_same_command(name: str, run_here: Run) -> None:
    by_script, by_command = run_here(MODULES[name], "--cfg", "job"), run_here(MAIN, name, "--cfg", "job")
    assert by_script == by_command and by_script.code == 0, by_script.err


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("train", ("sweep=grid", "--cfg", "hydra"), "mode: MULTIRUN"),
        ("train", ("seed=1", "--cfg", "job", "name=mine"), "name: mine"),
        ("predict", ("tta=flip", "--cfg", "job", "photo.jpg"), "- photo.jpg"),
    ],
)
def test_options_of_hydra_may_stand_anywhere(
    name: str, arguments: tuple[str, ...], shown: str, run_here: Run, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").touch()
    outcome = run_here(MODULES[name], *arguments)
    assert outcome.code == 0 and shown in outcome.out, outcome.err


def test_command_names_an_argument_that_is_no_setting(run_here: Run) -> None:
    outcome = run_here(MAIN, "report", "logs/quickstart")
    assert (outcome.code, outcome.out) == (EXIT_USAGE, "")
    assert outcome.err == "error: logs/quickstart is not a setting; write name=value, and see --help\n"


def test_main_runs_train_in_a_process_that_lightning_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning starts further processes with the arguments that Hydra parsed, which lack the subcommand."""
    started: list[str] = []
    monkeypatch.setattr(commands, "start", started.append)
    monkeypatch.setattr(sys, "argv", ["agegender", "trainer=ddp", "hydra.job.name=train_ddp_process_1"])
    commands.main()
    assert started == ["train"]


def test_script_names_the_program_that_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    assert (script("train"), script("predict")) == ("python train.py", "python predict.py")
    monkeypatch.setattr(sys, "argv", ["/venv/bin/agegender", "train"])
    assert script("train") == "agegender train"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("agegender ", set(COMMANDS)),
        ("agegender re", {"report"}),
        ("agegender train experiment=sm", {"experiment=small"}),
        ("agegender serve por", {"port="}),
        ("agegender predict img=x detec", {"detect="}),
    ],
)
def test_completion_offers_what_the_subcommand_accepts(
    line: str, wanted: set[str], run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shell, between in (("bash", " "), ("fish", "\n")):
        monkeypatch.setenv("COMP_LINE", line)
        outcome = run_here(MAIN, "-sc", f"query={shell}")
        assert outcome.code == 0 and set(outcome.out.strip().split(between)) == wanted, outcome.err


def imports_of(file: Path) -> set[Path]:
    """Returns the files of the package that a file imports at module level."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agegender"):
            module = ROOT / str(node.module).replace(".", "/")
            names = [module / f"{name.name}.py" for name in node.names]
            found |= {each for each in (module.with_suffix(".py"), module / "__init__.py", *names) if each.is_file()}
    return found


def test_data_package_imports_nothing_of_the_command_line() -> None:
    command_line = {"cli", "commands", "compose", "overrides", "resuming", "run_folder", "api"}
    waiting, seen = set((ROOT / "agegender" / "data").rglob("*.py")), set()
    while waiting:
        seen.add(file := waiting.pop())
        waiting |= imports_of(file) - seen
    assert ROOT / "agegender" / "models" / "network.py" in seen  # imports are followed
    assert not command_line & {file.stem for file in seen if file.parent.name == "agegender"}


def test_user_config_adds_options_and_replaces_none(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - quickstart\nname: mine\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    (tmp_path / "conf" / "train.yaml").write_text("seed: 77\n")  # another project's
    (tmp_path / "conf" / "experiment" / "small.yaml").write_text("# @package _global_\nname: not ours\n")
    shown = run_here("train.py", "experiment=mine", "--cfg", "job")
    assert shown.code == 0 and "name: mine\n" in shown.out and "seed: 0\n" in shown.out, shown.err
    assert "name: small\n" in run_here("train.py", "experiment=small", "--cfg", "job").out
    assert "mine" in run_here("train.py", "experiment=nine").err
