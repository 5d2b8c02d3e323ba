"""A real sweep over two folds, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY, Outcome, run_script

FOLDS = ("-m", *TINY, "protocol=folds", "data.folds=2", "data.fold=0,1", "report=true", "name=folds")


@pytest.fixture(scope="session")
def fold_sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The folder of the sweep `FOLDS`, which has a pooled report, and its output. Read only."""
    where = tmp_path_factory.mktemp("folds")
    outcome = run_script("train.py", *FOLDS, cwd=where)
    assert outcome.code == 0, outcome.err
    (sweep,) = (where / "logs/folds").iterdir()
    return sweep, outcome
