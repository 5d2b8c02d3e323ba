"""A run with further heads, from training to every way of prediction."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome

from agegender.prediction.prediction import columns_of, to_row
from agegender.prediction.predictor import Predictor

Run = Callable[..., Outcome]
GLASSES = "+tasks.glasses={_target_: agegender.tasks.Binary, label: glasses, classes: [no, yes]}"


@pytest.mark.slow
def test_predictions_of_four_heads_are_those_of_the_run_in_every_way(run_here: Run, tmp_path: Path) -> None:
    wide_run = tmp_path / "run"
    settings = (*TINY, "data.synthetic.glasses=true", "tasks=age_gender_ethnicity", GLASSES)
    trained = run_here("train.py", *settings, "hydra.run.dir=run")
    assert trained.code == 0, trained.err
    with (wide_run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    paths = [row["path"] for row in expected]
    predictor = Predictor(wide_run, "cpu", detect="never")
    assert [info.name for info in predictor.tasks] == ["age", "gender", "ethnicity", "glasses"]
    exported = run_here("agegender/prediction/export/__main__.py", f"weights={wide_run}", "out=wide.onnx")
    assert exported.code == 0 and " years and " in exported.out, exported.err
    chosen = {"torch": f"weights={wide_run}", "onnx": "weights=wide.onnx"}
    for backend, weights in chosen.items():
        given = ("detect=never", weights, f"backend={backend}", "out=faces.json", "annotate=marked")
        outcome = run_here("predict.py", *paths, *given)
        assert outcome.code == 0, outcome.err
        rows = json.loads((tmp_path / "faces.json").read_text())
        assert tuple(rows[0]) == columns_of(predictor.tasks) and len(list((tmp_path / "marked").iterdir())) >= 20
        for ours, theirs, face in zip(rows, expected, predictor.predict(paths), strict=True):
            for info in predictor.tasks:
                for name, tested, digits in zip(info.columns, info.test_columns, info.digits, strict=True):
                    apart = 1.01 if digits is None else 1.2 * 10**-digits  # rounding; whole years may move by one
                    assert ours[name] == pytest.approx(float(theirs[tested]), abs=apart)
                    assert ours[name] == pytest.approx(to_row(face, predictor.tasks)[name], abs=apart)
                if info.classes:
                    assert ours[info.name] in (*info.classes, "unsure")
        assert len({row["p_glasses"] for row in rows}) > 5 and len({row["p_ethnicity_Asian"] for row in rows}) > 5
