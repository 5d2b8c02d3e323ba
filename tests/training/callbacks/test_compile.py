"""`compile=true`: a compiled training writes the same checkpoint as an eager one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY, run_script

from agegender.runs.checkpoint import load_checkpoint


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_compile_keeps_the_names_and_values_of_the_weights(tmp_path: Path) -> None:
    for name in ("fast", "plain"):  # without dropout: compiled, it draws other masks
        settings = ("model.dropout=0", f"compile={'true' if name == 'fast' else 'false'}", f"hydra.run.dir={name}")
        outcome = run_script("train.py", *TINY, *settings, cwd=tmp_path)
        assert outcome.code == 0, outcome.err
    fast, plain = (load_checkpoint(tmp_path / name / "checkpoints/last.ckpt")["network"] for name in ("fast", "plain"))
    assert list(fast) == list(plain)
    for name, weights in plain.items():
        if isinstance(weights, torch.Tensor):  # else a calibration, fitted to the few validation faces
            torch.testing.assert_close(fast[name], weights, rtol=0.01, atol=1e-3)  # 12 steps of Adam move by 0.012
