"""The examples of docs/extending.md run unchanged."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Outcome

Run = Callable[..., Outcome]

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(text)[2:] for kind, text in BLOCKS if kind == "bash"]
FASTER = ("trainer.max_epochs=1", "test=false", "data.synthetic.count=60", "hydra.run.dir=run")


def file_of(block: str) -> str:
    """Returns the path that a block of code names in its first comments."""
    return str(re.findall(r"^# (my_\S+)$", block, re.MULTILINE)[0])


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Writes the files of the page into the working folder."""
    for kind, text in BLOCKS:
        if kind in ("python", "yaml"):
            path = tmp_path / file_of(text)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_parts"]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


def test_extending_page_has_an_example_of_each_part() -> None:
    files = {file_of(text) for kind, text in BLOCKS if kind in ("python", "yaml")}
    parts = {"trunk", "task", "callback", "scheduler", "logger"}
    assert {f"my_parts/{part}.py" for part in parts} | {"my_conf/augment/perspective.yaml"} <= files
    assert len(COMMANDS) == 7
    assert all(len(text.strip().splitlines()) <= 35 for _, text in BLOCKS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1].split("=")[0].strip("+"))
def test_extending_page_examples_train(command: list[str], run_here: Run, tmp_path: Path) -> None:
    own = any(argument.startswith("model=") for argument in command)
    tiny = [setting for setting in TINY if not (own and setting.startswith("model."))]
    outcome = run_here("train.py", *command, *tiny, *FASTER)
    assert outcome.code == 0, outcome.err
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    text = " ".join(command)
    if "model=pyramid" in text:
        assert kept["agegender"]["network"]["trunk"] == {"_target_": "my_parts.trunk.Pyramid", "width": 16}
    if "age=laplace" in text:
        assert kept["agegender"]["network"]["tasks"]["age"]["_target_"] == "my_parts.task.Laplace"
        assert kept["state_dict"]["network.heads.age.3.weight"].shape[0] == 2
    if "optim=onecycle" in text:
        assert kept["lr_schedulers"][0]["total_steps"] == kept["global_step"]
        longer = run_here("train.py", "--config-dir", "my_conf", "resume=run", "trainer.max_epochs=2")
        longer.assert_one_line_error("its scheduler ends after 3 steps")
    if "InverseSquareRoot" in text:
        rate = kept["optimizer_states"][0]["param_groups"][0]["lr"]
        assert rate == pytest.approx(1e-3 * (kept["global_step"] + 1) / 50)
    if "logger=lines" in text:
        lines = [json.loads(line) for line in (tmp_path / "run" / "curves.jsonl").read_text().splitlines()]
        assert any("val/age_mae" in line for line in lines)
    if "gradient_norm" in text:
        from tensorboard.backend.event_processing.event_accumulator import (
            EventAccumulator,
        )

        curves = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        curves.Reload()
        assert all(point.value > 0 for point in curves.Scalars("train/gradient_norm"))
