"""Runs of train.py on further labels: columns of a table, packed too, and the glasses of drawn faces."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of
from helpers.made_tables import half_labeled, write_table

Run = Callable[..., Outcome]
NETWORK = tuple(setting for setting in TINY if not setting.startswith("data"))
FURTHER = (
    "+tasks.smile={_target_: agegender.tasks.Binary, label: smile, classes: [no, yes]}",
    "+tasks.mood={_target_: agegender.tasks.Multiclass, label: mood, classes: [sad, calm, happy], weight: 0.5}",
    "+tasks.tall={_target_: agegender.tasks.Regression, label: height}",
)
PIXELS = ("data.image_size=32", "data.batch_size=16")


@pytest.fixture(scope="module")
def table(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings of a table with holes in age, gender and three further columns."""
    rows = half_labeled(faces)
    for number, row in enumerate(rows):
        row |= {"smile": ("no", "YES", "", "1")[number % 4], "mood": ("happy", "", "sad", "calm", "0")[number % 5]}
        row |= {"height": 1.2 + number / 200 if number % 7 else "NA"}
    path = write_table(tmp_path_factory.mktemp("table") / "labels.csv", rows)
    return ("data=table", f"data.table={path}", f"data.dir={faces}")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# LitData leaves the last shard of an epoch open for the garbage collector
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_further_columns_with_holes_train_and_are_measured_from_a_table_and_from_shards(
    run_here: Run, table: tuple[str, ...], tmp_path: Path
) -> None:
    outcome = run_here("train.py", *NETWORK, *PIXELS, *table, *FURTHER, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert "missing labels: age of 60 images, gender of 20 images, smile of 30 images, mood of 24 images" in outcome.out
    metrics, rows = metrics_of(tmp_path / "run"), rows_of(tmp_path / "run" / "predictions.csv")
    names = {
        f"{stage}/{name}" for stage in ("val", "test") for name in ("smile_acc", "mood_acc", "tall_mae", "age_mae")
    }
    assert all(math.isfinite(metrics[name]) for name in names)
    assert metrics["classes"]["mood"] == ["sad", "calm", "happy"]
    known = [row for row in rows if row["mood"]]
    assert 0 < len(known) < len(rows)
    columns = [f"p_mood_{name}" for name in metrics["classes"]["mood"]]
    right = [max(columns, key=lambda name: float(row[name])) == columns[int(row["mood"])] for row in known]
    assert sum(right) / len(right) == pytest.approx(metrics["test/mood_acc"])
    errors = [abs(float(row["height"]) - float(row["tall_pred"])) for row in rows if row["height"]]
    assert sum(errors) / len(errors) == pytest.approx(metrics["test/tall_mae"], abs=1e-3)

    assert run_here("agegender/data/streaming/__main__.py", *table, *FURTHER, "out=shards").code == 0
    streamed = ("data=streaming", "data.dir=shards", "fit=false", "weights=run", *PIXELS[1:])
    outcome = run_here("train.py", *NETWORK, *streamed, *FURTHER, "hydra.run.dir=streamed")
    assert outcome.code == 0, outcome.err
    for name in ("index.csv", "predictions.csv"):
        assert (tmp_path / "streamed" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    theirs = metrics_of(tmp_path / "streamed")
    assert {name: theirs[name] for name in names} == pytest.approx({name: metrics[name] for name in names}, rel=1e-5)


@pytest.mark.slow
def test_glasses_on_drawn_faces_are_learned_as_a_third_task(run_here: Run, tmp_path: Path) -> None:
    settings = [setting for setting in TINY if "count" not in setting and "epochs" not in setting]
    outcome = run_here(
        *("train.py", *settings, "data.synthetic.count=600", "data.synthetic.glasses=true", "trainer.max_epochs=12"),
        "+tasks.glasses={_target_: agegender.tasks.Binary, label: glasses, classes: [no, yes]}",
        "hydra.run.dir=run",
    )
    assert outcome.code == 0, outcome.err
    metrics = metrics_of(tmp_path / "run")
    assert metrics["test/glasses_auroc"] > 0.8 and metrics["data"].startswith("drawn faces")
