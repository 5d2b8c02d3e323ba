"""Every command with paths that hold characters of Hydra's grammar."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of

Run = Callable[..., Outcome]
ODD = "my faces (1), [x]={y} ${z} 'q' $HOME \\${a}"  # an existing path, or an output
ODD_RUN = "a run, [2]={y} 'q'  $HOME"  # Hydra resolves `${...}` in its own folders


@pytest.mark.slow
def test_commands_accept_paths_with_grammar_characters(
    run_here: Run, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def done(script: str, *arguments: str) -> Outcome:
        outcome = run_here(script, *arguments)
        assert outcome.code == 0, outcome.err
        return outcome

    shutil.copytree(faces, tmp_path / ODD)
    run = tmp_path / "logs" / ODD_RUN
    tiny = [argument for argument in TINY if not argument.startswith("data.synthetic")]
    tiny = ["data=utkface" if argument == "data=synthetic" else argument for argument in tiny]
    done("train.py", *tiny, f"data.dir={ODD}", f"data.cache_dir={ODD} cache", f"hydra.run.dir=logs/{ODD_RUN}")
    assert metrics_of(run)["images/test"] > 0 and (tmp_path / f"{ODD} cache").is_dir()
    done("train.py", f"resume=logs/{ODD_RUN}", "trainer.max_epochs=3")
    assert metrics_of(run)["epochs"] == 3
    best = run / "checkpoints" / "best.ckpt"
    (tmp_path / "epoch=3,b.ckpt").symlink_to(best)
    done("train.py", *tiny, f"data.dir=./{ODD}", "fit=false", "weights=epoch=3,b.ckpt", "hydra.run.dir=again")
    assert metrics_of(tmp_path / "again")["test/age_mae"] == pytest.approx(metrics_of(run)["test/age_mae"])
    done(
        "predict.py", f"img={ODD}", "weights=epoch=3,b.ckpt", "detect=never", f"out={ODD}.csv", f"annotate={ODD} album"
    )
    assert (tmp_path / f"{ODD}.csv").is_file() and (tmp_path / f"{ODD} album").is_dir()
    done(
        "agegender/evaluation/report/__main__.py",
        f"run=logs/{ODD_RUN},again",
        f"out={ODD} page",
        "resamples=20",
        "faces=2",
    )
    assert (tmp_path / f"{ODD} page" / "report.html").is_file()
    options = ("limit=8", "resamples=10", "device=cpu")
    done(
        "agegender/evaluation/robustness/__main__.py",
        f"run=logs/{ODD_RUN}",
        f"out={ODD} r",
        f"data_dir={ODD}",
        *options,
    )
    done(
        "agegender/evaluation/robustness/__main__.py", f"run=logs/{ODD_RUN}", *options
    )  # the faces are where the run had them
    assert (tmp_path / f"{ODD} r" / "robustness.html").is_file() and (run / "robustness" / "robustness.html").is_file()
    done(
        "agegender/evaluation/explore/__main__.py",
        f"data.dir={ODD}",
        f"data.cache_dir={ODD} cache",
        f"out={ODD} explored",
    )
    assert (tmp_path / f"{ODD} explored" / "explore.html").is_file()
    done("agegender/weights/__main__.py", f"run=logs/{ODD_RUN}", f"out={ODD}.ckpt")
    record = json.loads((tmp_path / f"{ODD}.json").read_text())
    assert "faces" not in record["command"] and "model.trunk.channels=[8,16]" in record["command"]
    done("agegender/prediction/export/__main__.py", f"weights={ODD}.ckpt", f"out={ODD}.onnx", f"check={ODD}")
    assert (tmp_path / f"{ODD}.onnx").is_file()
    monkeypatch.setenv("HOME", str(tmp_path))
    done("agegender/data/streaming/__main__.py", f"data.dir=~/{ODD}", f"out=~/{ODD} shards")
    done("train.py", *tiny[1:], "data=streaming", f"data.dir={ODD} shards", "fit=false", f"weights=~/{ODD}.ckpt")


def test_commands_quote_a_missing_path_unchanged(run_here: Run) -> None:
    for script, argument, *more in (
        ("agegender/evaluation/report/__main__.py", f"run={ODD.replace(',', '')}"),
        ("agegender/prediction/export/__main__.py", f"weights={ODD}", "out=x.onnx"),
        ("agegender/web/__main__.py", f"weights={ODD}", "port=0"),
        ("agegender/weights/__main__.py", f"run={ODD}", "out=x"),
    ):
        outcome = run_here(script, argument, *more)
        outcome.assert_one_line_error(argument.partition("=")[2])
