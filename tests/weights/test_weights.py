"""What ships: small, in half precision, with its figures, loadable by itself, and nobody's paths in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Outcome, metrics_of

from agegender.checkpoint import load_checkpoint
from agegender.errors import AgeGenderError
from agegender.prediction.predictor import Predictor
from agegender.weights.__main__ import pack

Run = Callable[..., Outcome]
COMMAND = "agegender/weights/__main__.py"


def test_packed_weights_answer_as_the_run_did(trained_run: Path, faces: Path, tmp_path: Path) -> None:
    out = pack(trained_run, tmp_path / "packed.ckpt")
    best = trained_run / "checkpoints" / "best.ckpt"
    assert out.stat().st_size < best.stat().st_size / 3  # no optimiser, and half the bytes
    pictures = sorted(faces.glob("*.jpg"))[:16]
    for ours, theirs in zip(Predictor(out).predict(pictures), Predictor(best).predict(pictures), strict=True):
        assert ours.age == pytest.approx(theirs.age, abs=0.1)
        assert ours.p_female == pytest.approx(theirs.p_female, abs=0.01)
        assert ours.age_std == pytest.approx(theirs.age_std, rel=0.01)
        assert ours.age_low == pytest.approx(theirs.age_low, abs=1)


def test_packed_weights_describe_themselves_and_tell_of_no_folder(trained_run: Path, tmp_path: Path) -> None:
    out = pack(trained_run, tmp_path / "packed.ckpt")
    held = load_checkpoint(out)
    assert set(held) == {"agegender", "state_dict", "network"}
    assert held["agegender"]["calibration"] and held["agegender"]["split"]["fingerprint"]
    halved = {value.dtype for value in held["network"].values() if value.ndim > 1}
    assert halved == {torch.float16}
    told, figures = json.loads(out.with_suffix(".json").read_text()), metrics_of(trained_run)
    assert told["test/age_mae"] == figures["test/age_mae"]
    assert told["split_fingerprint"] == held["agegender"]["split"]["fingerprint"]
    assert told["command"].startswith("python train.py data=synthetic ")
    assert str(trained_run) not in json.dumps({**told, "command": ""})


def test_packed_weights_are_measured_again_by_the_same_command(
    trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    pack(trained_run, tmp_path / "packed.ckpt")
    again = run_here("train.py", *TINY, "fit=false", "weights=packed.ckpt", "hydra.run.dir=again")
    assert again.code == 0, again.err
    measured, figures = metrics_of(tmp_path / "again"), metrics_of(trained_run)
    assert measured["test/age_mae"] == pytest.approx(figures["test/age_mae"], abs=0.05)


def test_a_run_without_figures_is_not_packed(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").symlink_to(trained_run / "checkpoints" / "best.ckpt")
    with pytest.raises(AgeGenderError, match=r"no metrics\.json"):
        pack(tmp_path, tmp_path / "packed.ckpt")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(AgeGenderError, match="not tested"):
        pack(tmp_path, tmp_path / "packed.ckpt")
    assert not (tmp_path / "packed.ckpt").exists()


def test_the_command_packs_and_says_how_large(trained_run: Path, run_here: Run, tmp_path: Path) -> None:
    done = run_here(COMMAND, f"run={trained_run}", "out=packed.ckpt")
    size = (tmp_path / "packed.ckpt").stat().st_size / 1e6
    assert (done.code, done.out.strip()) == (0, f"packed.ckpt: {size:.2f} MB")
    assert (tmp_path / "packed.json").is_file()


@pytest.mark.parametrize(
    "arguments",
    [(), ("run=logs",), ("run=", "out=a.ckpt"), ("run=logs", "out=a.ckpt", "size=8"), ("logs", "a.ckpt")],
    ids=["nothing", "no place", "no run", "one too many", "no names"],
)
def test_a_command_that_says_too_little_or_too_much_gets_its_usage(arguments: tuple[str, ...], run_here: Run) -> None:
    done = run_here(COMMAND, *arguments)
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "python -m agegender.weights run=logs/small/<date_time> out=small.ckpt" in done.err
