"""`compile=true`: a compiled training writes the same checkpoint as an eager one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Outcome

from agegender.runs.checkpoint import load_checkpoint


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_compile_keeps_the_names_and_values_of_the_weights(
    run_here: Callable[..., Outcome], trained_run: Path, tmp_path: Path
) -> None:
    outcome = run_here("train.py", *TINY, "compile=true", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    fast, plain = (load_checkpoint(run / "checkpoints/last.ckpt")["network"] for run in (tmp_path / "run", trained_run))
    assert list(fast) == list(plain)
    for name, weights in plain.items():
        torch.testing.assert_close(fast[name], weights, rtol=1e-3, atol=1e-4)
