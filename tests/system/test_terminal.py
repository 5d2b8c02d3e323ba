"""Standard output that is closed or whose reader is gone, and names that look like markup."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, TINY, Outcome
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from agegender.system.terminal import console, printable


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = command.replace("train.py", f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'train.py'))}")
    line = line.replace("predict.py", f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'predict.py'))}")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command_line = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(command_line, cwd=cwd, env=environment, text=True, capture_output=True, check=False)


def test_training_goes_on_when_its_reader_is_gone(
    run_here: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        outcome = run_here("train.py", *TINY, "trainer.max_epochs=1", "hydra.run.dir=run")
        assert outcome.code == 0, outcome.err
    assert outcome.err.count("standard output is closed: the command goes on without it\n") == 1
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["| head -1", ">&-", ">&- 2>&- <&-"])
def test_training_without_a_reader_finishes(redirect: str, tmp_path: Path) -> None:
    settings = " ".join(map(shlex.quote, TINY))
    done = shell(f"train.py {settings} hydra.run.dir=run {redirect}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "Traceback" not in done.stderr and "Logging error" not in done.stderr


def test_prediction_to_a_closed_output_is_refused(faces: Path, tmp_path: Path) -> None:
    for out in ("", "out=-"):
        done = shell(f"predict.py img={shlex.quote(str(faces))} {out} >&-", tmp_path)
        assert done.returncode == 1 and done.stderr == "error: standard output is closed: set out=predictions.csv\n"


@pytest.mark.slow
def test_prediction_into_a_file_ignores_a_closed_output(faces: Path, tmp_path: Path) -> None:
    done = shell(f"predict.py img={shlex.quote(str(faces))} detect=never out=a.csv >&-", tmp_path)
    assert done.returncode == 0 and (tmp_path / "a.csv").is_file(), done.stderr


def test_run_folder_whose_name_looks_like_markup_is_printed_as_it_is(run_here: Callable[..., Outcome]) -> None:
    name = "br[/x] [bold] :smile:"
    outcome = run_here("train.py", *TINY, "trainer.max_epochs=1", f"hydra.run.dir={name}")
    assert outcome.code == 0, outcome.err
    assert f"results: {name}\n" in outcome.out


@given(text=st.text(max_size=20))
def test_tables_print_any_text_literally(text: str) -> None:
    table, out = Table("x"), io.StringIO()
    table.add_row(printable(text))
    console(file=out, width=400).print(table)
    assert printable(text).strip() in out.getvalue()
    assert all(letter.isprintable() for letter in printable(text))
