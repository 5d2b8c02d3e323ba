"""`--help`: every setting with its comment, by group, from the config files alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Outcome

from agegender.cli.commands import COMMANDS
from agegender.cli.help import command_help
from agegender.config.comments import document, options_of, read_comments
from agegender.config.compose import CONF

Run = Callable[..., Outcome]


def test_read_comments_finds_comments_beside_below_and_above_a_key() -> None:
    text = (
        "# @package _global_\n# The first line,\n# and the second.\ndefaults:\n  - other  # no key\n"
        "a: '# no comment'   # of a\n"
        "b:            # of b\n"
        "  c: 1\n"
        "  # above d\n"
        "  d: x#y      # of d,\n"
        "              # continued\n"
        "e: [1, 2]\n"
    )
    package, summary, comments = read_comments(text)
    assert (package, summary) == ("_global_", "The first line, and the second.")
    del comments["defaults"]
    assert comments == {"a": "of a", "b": "of b", "b.c": "", "b.d": "above d of d, continued", "e": ""}


def test_document_includes_the_comments_of_a_files_own_defaults() -> None:
    found = document("trainer/mixed", [CONF])
    assert found.package == "trainer." and found.summary.startswith("Mixed precision")
    assert found.keys["num_sanity_val_steps"] == "the data is checked while it is indexed"  # of trainer/auto
    assert document("age/mae", [CONF]).package == "tasks.age."
    assert document("nowhere/none", [CONF]).keys == {}


def test_train_help_shows_every_group_option_and_comment() -> None:
    shown = command_help("train", [])
    words = " ".join(shown.split())
    for group in ("data", "model", "tasks", "age", "augment", "optim", "trainer", "callbacks", "logger", "experiment"):
        assert f"\n{group}=" in shown
        for option in options_of(group, [CONF]):
            assert f" {group}={option}" in shown
    assert "seed=0 of initial weights, order, dropout and augmentation; that of the split is data.split_seed" in words
    assert "data.limit=null maximum number of images, a fixed subset of all splits" in words
    assert "* optim=adam " in shown and "  optim=adamw " in shown
    assert "tasks.age.scale=20.0 years" in words and "\n  hydra." not in shown


def test_train_help_shows_the_values_of_its_command_line() -> None:
    words = " ".join(command_help("train", ["experiment=small", "optim.lr=0.5", "model.dropout=0.25"]).split())
    assert "* model=residual" in words and "* experiment=small" in words and "* age=dldl" in words
    assert "optim.lr=0.5" in words and "model.dropout=0.25 dropout rate after each dense layer" in words
    assert "optim.scheduler.warmup_fraction=0.05 fraction of all steps" in words


@pytest.mark.parametrize(("name", "columns"), [*((name, 80) for name in COMMANDS), ("train", 200)])
def test_help_lines_fit_the_terminal(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for line in command_help(name, []).splitlines():
        assert len(line) <= min(columns, 100) or " " not in line.strip(), line  # a value is never broken


def test_predict_help_shows_its_own_settings_only(run_here: Run) -> None:
    shown = run_here("predict.py", "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("usage: python predict.py [name=value ...]\n")
    settings = {line.split("=")[0].strip() for line in shown.out.splitlines() if line.startswith("  ") and "=" in line}
    assert {"img", "weights", "detect", "batch_size"} <= settings and not {"data.dir", "seed"} & settings
    assert "device=auto                     cpu, cuda, cuda:1, ...\n" in shown.out


def test_help_names_the_users_own_options(run_here: Run, tmp_path: Path) -> None:
    for folder, name in (("conf", "mine"), ("shared", "ours")):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        text = f"# @package _global_\n# The experiment {name}.\noptim:\n  lr: 0.125  # a rate of {name}\n"
        (tmp_path / folder / "experiment" / f"{name}.yaml").write_text(text)
    shown = run_here("train.py", "--config-dir", "shared", "experiment=ours", "--help")
    words = " ".join(shown.out.split())
    assert "experiment=mine The experiment mine." in words and "* experiment=ours The experiment ours." in words
    assert "optim.lr=0.125 a rate of ours" in words


def test_help_refuses_a_misspelled_setting(run_here: Run) -> None:
    run_here("train.py", "sed=3", "--help").assert_one_line_error("sed is not known; did you mean seed?", code=2)


def test_hydra_help_remains(run_here: Run) -> None:
    assert "--hydra-help" in (shown := run_here("train.py", "--hydra-help").out) and "--multirun" in shown


def test_help_ends_quietly_when_its_reader_has_read_enough(tmp_path: Path) -> None:
    command = f"{sys.executable} {ROOT / 'train.py'} --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")
