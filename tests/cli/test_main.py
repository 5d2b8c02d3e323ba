"""The command-line boundary: one line and an exit code for a user's error, and the expansion of `resume=`."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import shutil
import string
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Outcome, run_script
from helpers.composed import RefusalOf, refusal_of
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st

from agegender.cli.main import report_errors, run_command
from agegender.config.hydra_versions import version_base
from agegender.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE, AgeGenderError, InterruptedRunError, did_you_mean
from agegender.runs.resume import resume_overrides, run_dir_of

MISSPELLED = {
    "model.chanels=[8]": "model.chanels is not known; did you mean model.trunk.channels?",
    "data.synthetic.cuont=5": "data.synthetic.cuont is not known; did you mean count?",
    "optim.learning_rate=1": "optim.learning_rate is not known; choose from lr, optimizer, scheduler",
    "optim.optimizer.wieght_decay=1": "optim.optimizer.wieght_decay is not known; if it is an argument of "
    "optim.optimizer's class, add it with +optim.optimizer.wieght_decay=...",
    "sed=3": "sed is not known; did you mean seed?",
    "data=UTKFace": "data=UTKFace is not known; did you mean utkface?",
    "experiment=quickstrat": "experiment=quickstrat is not known; did you mean quickstart?",
    "augmnt=light": "augmnt is not known; did you mean augment?",
    "~callbacks.earlystopping": "callbacks.earlystopping",
}


@pytest.mark.parametrize("wrong", MISSPELLED)
def test_misspelled_setting_is_refused_with_the_nearest_before_any_write(
    run_here: Callable[..., Outcome], tmp_path: Path, wrong: str
) -> None:
    outcome = run_here("train.py", "data=synthetic", "data.cache_dir=cache", wrong)
    outcome.assert_one_line_error(MISSPELLED[wrong], code=EXIT_USAGE)
    assert outcome.out == ""
    assert not any(tmp_path.iterdir())  # no run folder, no cache, no data


UNKNOWN = {
    "+trainer.max_epoch=3": "trainer.max_epoch is not known; did you mean max_epochs?",
    "+trainer.foo=1": "trainer.foo is not known; choose from ",
    "+callbacks.early_stopping.patienc=1": "callbacks.early_stopping.patienc is not known; did you mean patience",
    "+optim.optimizer.beta=[0.9,0.99]": "optim.optimizer.beta is not known; did you mean betas?",
    "+augment.fip=0.5": "augment.fip is not known; did you mean flip?",
    "+model.image_size=9": "model.image_size is not known",
    "+model.chanels=[8]": "model.chanels is not known; did you mean model.trunk.channels?",
    "+model.name=resnet18": "model.name=resnet18 has no effect: ",
    "+model.pretrained=true": "model.pretrained: agegender.models.trunks.conv_stack.ConvStack has no published weights",
    "model.trunk=conv": "model.trunk=conv has no _target_: name the class to build",
    "optim.scheduler=cosine": "optim.scheduler=cosine has no _target_: name the class to build",
    "callbacks.image_logger=none": "callbacks.image_logger=none has no _target_: name the class to build",
    "model.trunk._target_=torch.optim.Adam": "model.trunk._target_: torch.optim.Adam is refused; it is not a ",
    "tasks.age._target_=torch.optim.Adam": "tasks.age._target_: torch.optim.Adam is refused; it is not a ",
    "model.trunk._target_=nowhere.Trunk": "model.trunk._target_: nowhere.Trunk is refused; the package",
}


@pytest.mark.parametrize("wrong", UNKNOWN)
def test_unknown_setting_is_refused_with_the_nearest(refusal_of: RefusalOf, wrong: str) -> None:
    assert refusal_of("data=synthetic", wrong).startswith(UNKNOWN[wrong])


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("+trainer.max_epoch=3", UNKNOWN["+trainer.max_epoch=3"]),
        ("tasks.age.name=mae", "tasks.age.name is not known; if it is an argument of tasks.age's class"),
        ("+trust=[os]", "trust=os is refused: modules of Python's standard library"),
        ("trust=torch", "trust=torch is refused: some of its functions can run code from files"),
    ],
)
def test_unknown_setting_is_refused_before_data_is_read(
    run_here: Callable[..., Outcome], tmp_path: Path, wrong: str, expected: str
) -> None:
    outcome = run_here("train.py", "data=synthetic", "data.cache_dir=cache", wrong)
    refused_by_hydra = wrong.startswith("tasks.age.name")
    outcome.assert_one_line_error(f"error: {expected}", code=EXIT_USAGE if refused_by_hydra else EXIT_ERROR)
    assert not (tmp_path / "cache").exists()


def test_override_syntax_error_is_refused_in_one_line(run_here: Callable[..., Outcome]) -> None:
    outcome = run_here("train.py", "model.trunk.channels=[8,")
    outcome.assert_one_line_error(code=EXIT_USAGE)


def test_train_script_refuses_a_misspelled_key_in_one_line(tmp_path: Path) -> None:
    outcome = run_script("train.py", "model.dropuot=0.2", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (EXIT_USAGE, "")
    assert outcome.err == "error: model.dropuot is not known; did you mean dropout?\n"


def test_hydra_full_error_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", "model.dropuot=1"])
    with pytest.raises(HydraException):
        run_command(lambda config: None, "train")


@given(st.text(string.ascii_lowercase, min_size=1), st.lists(st.text(string.ascii_lowercase, min_size=1), max_size=6))
def test_did_you_mean_suggests_valid_names_only(wrong: str, valid: list[str]) -> None:
    answer = did_you_mean(wrong, valid)
    if answer.startswith("did you mean "):
        assert answer.removeprefix("did you mean ").removesuffix("?") in valid
    else:
        assert all(name in answer for name in valid)
    if wrong in valid:
        assert answer == f"did you mean {wrong}?"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (AgeGenderError("no such thing"), EXIT_ERROR, "error: no such thing\n"),
        (InterruptedRunError("stopped; go on with x"), EXIT_INTERRUPTED, "stopped; go on with x\n"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted\n"),
    ],
)
def test_report_errors_turns_a_user_error_into_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end, report_errors():
        raise error
    assert end.value.code == code and capsys.readouterr().err == line
    # in a multirun, Hydra handles a failed job; an interrupted one ends the sweep
    kept = KeyboardInterrupt if isinstance(error, InterruptedRunError) else type(error)
    with pytest.raises(kept), report_errors(reraise=True):
        raise error


def test_report_errors_keeps_the_traceback_of_a_bug() -> None:
    with pytest.raises(ZeroDivisionError), report_errors():
        raise ZeroDivisionError


def make_checkpoint(path: Path, step: int) -> None:
    torch.save({"agegender": {}, "state_dict": {}, "epoch": 0, "global_step": step}, path)


def make_run(folder: Path, overrides: str) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(overrides)
    (folder / "checkpoints").mkdir()
    for step, name in enumerate(("best.ckpt", "last.ckpt")):
        make_checkpoint(folder / "checkpoints" / name, step)
    return folder


def test_resume_overrides_keeps_arguments_without_resume() -> None:
    for arguments in (["a=1"], ["resume=null"], ["resume="], ["data.resume=x"], []):
        assert resume_overrides(arguments) == arguments


def test_resume_overrides_keeps_the_old_overrides_and_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "- optim=adamw\n- seed=4\n- resume=x\n- +weights=y\n- hydra.run.dir=z\n")
    assert resume_overrides([f"resume={run}", "trainer.max_epochs=9"]) == [
        "optim=adamw",
        "seed=4",
        "trainer.max_epochs=9",
        f"resume='{run / 'checkpoints' / 'last.ckpt'}'",
        f"hydra.run.dir='{run}'",
        "hydra.output_subdir=null",
    ]


def test_resume_overrides_accepts_a_checkpoint_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "[]")
    best = run / "checkpoints" / "best.ckpt"
    assert resume_overrides([f"resume={best}"]) == [
        f"resume='{best}'",
        f"hydra.run.dir='{run}'",
        "hydra.output_subdir=null",
    ]


def test_resume_overrides_quotes_the_name_of_the_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "it's my run", "[]")
    with initialize_config_dir(str(ROOT / "conf"), **version_base()):
        config = compose("train", resume_overrides([f"resume={run}"]), return_hydra_config=True)
    assert config.resume == str(run / "checkpoints" / "last.ckpt")
    assert config.hydra.run.dir == str(run)


@pytest.mark.parametrize("missing", ["overrides", "checkpoint", "run"])
def test_resume_overrides_names_the_missing_file(tmp_path: Path, missing: str) -> None:
    run = make_run(tmp_path / "run", "[]")
    lost = {
        "overrides": run / ".hydra" / "overrides.yaml",
        "checkpoint": run / "checkpoints" / "last.ckpt",
        "run": tmp_path / "nowhere",
    }[missing]
    if missing == "checkpoint":
        shutil.rmtree(run / "checkpoints")
    lost.unlink(missing_ok=True)
    with pytest.raises(AgeGenderError, match=str(lost)):
        resume_overrides([f"resume={run if missing != 'run' else lost}"])


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_resume_is_refused_in_a_multirun(run_here: Callable[..., Outcome], tmp_path: Path, flag: str) -> None:
    run = make_run(tmp_path / "run", "[]")
    outcome = run_here("train.py", flag, *TINY, f"resume={run}", "optim.lr=1e-3,1e-4")
    assert outcome.code == EXIT_ERROR
    assert (
        outcome.err == "error: resume=<run> continues one run: use it without -m and without sweep=, or resume=auto\n"
    )


def test_run_dir_of_checkpoint_is_two_levels_up(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "[]")
    assert run_dir_of(run) == run_dir_of(run / "checkpoints" / "last.ckpt") == run
