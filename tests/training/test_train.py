"""Complete runs of train.py on drawn faces."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import pty
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, Outcome, metrics_of, run_script
from helpers.stopped_runs import differences

from agegender.data.index.utkface import GROUPS
from agegender.data.sources.synthetic import IGNORED, ODD_READABLE, QUARANTINED, duplicates
from agegender.runs.checkpoint import load_checkpoint
from agegender.tasks.info import TaskInfo

Run = Callable[..., Outcome]


def test_run_writes_exactly_the_documented_files(trained_run: Path) -> None:
    files = {str(path.relative_to(trained_run)) for path in trained_run.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("tensorboard/")}
    assert events
    assert files - events == {
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
        "best_checkpoint.txt",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "csv/hparams.yaml",
        "csv/metrics.csv",
        "index.csv",
        "metrics.json",
        "predictions.csv",
        "quarantine.csv",
    }


def test_train_is_deterministic(run_here: Callable[..., Outcome], trained_run: Path, tmp_path: Path) -> None:
    again = run_here("train.py", *TINY, "hydra.run.dir=again")
    assert again.code == 0, again.err
    first, second = metrics_of(trained_run), metrics_of(tmp_path / "again")
    timings = {"seconds_per_epoch", "images_per_second", "train_seconds"}
    assert {key: first[key] for key in first if key not in timings} == {
        key: second[key] for key in second if key not in timings
    }


def test_seed_changes_the_weights_and_not_the_split(run_here: Run, trained_run: Path, tmp_path: Path) -> None:
    assert run_here("train.py", *TINY, "seed=1", "trainer.max_epochs=1", "test=false", "hydra.run.dir=other").code == 0
    other = tmp_path / "other"
    assert metrics_of(other)["split_fingerprint"] == metrics_of(trained_run)["split_fingerprint"]
    assert (other / "index.csv").read_bytes() == (trained_run / "index.csv").read_bytes()
    weights = [load_checkpoint(run / "checkpoints/last.ckpt")["network"] for run in (other, trained_run)]
    assert not torch.equal(weights[0]["trunk.stages.0.weight"], weights[1]["trunk.stages.0.weight"])


def test_metrics_json_holds_every_metric_and_its_provenance(trained_run: Path) -> None:
    results = metrics_of(trained_run)
    figures = {
        f"{stage}/{name}"
        for stage in ("val", "test")
        for name in (["loss", "age_loss", "gender_loss", "age_mae", "age_mse", "age_cs5", "gender_acc", "gender_auroc"])
    }
    packages = (
        "agegender",
        "python",
        "torch",
        "torchvision",
        "lightning",
        "torchmetrics",
        "hydra-core",
        "pillow",
        "numpy",
    )
    versions = {f"version/{name}" for name in packages}
    assert set(results) == figures | versions | {
        "baseline/age_mae",
        "baseline/gender_acc",
        "best_score",
        "best_epoch",
        "monitor",
        "epochs",
        "seconds_per_epoch",
        "images_per_second",
        "train_seconds",
        "data",
        "classes",
        "tasks",
        "split",
        "protocol",
        "leak",
        "leak/test",
        "leak/training",
        "leak/with_copy",
        "duplicates",
        "split_fingerprint",
        "images/train",
        "images/val",
        "images/test",
        "images/quarantined",
        "parameters",
        "seed",
        "overrides",
        "hardware",
        "precision",
    }
    nested = {key: results.pop(key) for key in ("classes", "tasks")}
    assert all(isinstance(value, int | float | str) for value in results.values())
    assert nested["classes"] == {"gender": ["male", "female"], "group": list(GROUPS)}
    assert [info["name"] for info in nested["tasks"]] == ["age", "gender"]
    assert all(TaskInfo.from_dict(info).to_dict() == info for info in nested["tasks"])
    assert results["epochs"] == 2 and results["best_score"] == results["val/age_mae"]
    assert results["images/train"] + results["images/val"] + results["images/test"] == 120
    assert results["seconds_per_epoch"] > 0 and results["images_per_second"] > 0
    assert results["train_seconds"] == pytest.approx(2 * results["seconds_per_epoch"], abs=0.06)
    assert results["version/torch"] == torch.__version__.split("+")[0] or results["version/torch"] == torch.__version__
    assert "thread" in results["hardware"] and "model.trunk.channels=[8,16]" in results["overrides"]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_predictions_csv_holds_each_test_image_once_and_yields_the_metrics(
    trained_run: Path,
) -> None:
    rows = rows_of(trained_run / "predictions.csv")
    interval_columns = ["age_std", "age_low", "age_high"]
    assert list(rows[0]) == ["path", "age", "age_pred", *interval_columns, "gender", "p_female", "group"]
    tested = [row for row in rows_of(trained_run / "index.csv") if row["split"] == "test"]
    assert sorted(Path(row["path"]).name for row in rows) == sorted(row["file"] for row in tested)
    for row in rows:
        assert Path(row["path"]).is_file()
        age, gender, group = Path(row["path"]).name.split("_")[:3]
        assert (row["age"], row["gender"], row["group"]) == (age, gender, group)
    results = metrics_of(trained_run)
    # a point prediction has no std: calibration gives it validation's RMSE near that age
    assert all(0.2 < float(row["age_std"]) / results["val/age_mse"] ** 0.5 < 3 for row in rows)
    assert all(0 <= float(row["age_low"]) <= float(row["age_high"]) <= 120 for row in rows)
    errors = [abs(float(row["age"]) - float(row["age_pred"])) for row in rows]
    assert sum(errors) / len(errors) == pytest.approx(results["test/age_mae"], abs=1e-3)
    assert sum(error <= 5 for error in errors) / len(errors) == pytest.approx(results["test/age_cs5"])
    right = [(float(row["p_female"]) > 0.5) == (row["gender"] == "1") for row in rows]
    assert sum(right) / len(right) == pytest.approx(results["test/gender_acc"])


def test_baseline_is_the_training_median_and_majority_on_the_test_images(trained_run: Path) -> None:
    rows = rows_of(trained_run / "index.csv")
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    median = statistics.median(int(row["age"]) for row in train)
    majority = statistics.mode(row["gender"] for row in train)
    results = metrics_of(trained_run)
    assert results["baseline/age_mae"] == pytest.approx(statistics.mean(abs(int(row["age"]) - median) for row in test))
    assert results["baseline/gender_acc"] == pytest.approx(sum(row["gender"] == majority for row in test) / len(test))


@pytest.mark.slow
def test_train_lists_the_odd_files_that_it_quarantined(odd_faces: Path, tmp_path: Path) -> None:
    tiny = [setting for setting in TINY if not setting.startswith(("data=", "data.synthetic"))]
    outcome = run_script("train.py", *tiny, "data=utkface", f"data.dir={odd_faces}", "hydra.run.dir=run", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    left_out = {row["file"]: row["reason"] for row in rows_of(tmp_path / "run/quarantine.csv")}
    assert set(left_out) == {*QUARANTINED, *IGNORED, "nested"} and all(left_out.values())
    assert f"{len(left_out)} files quarantined" in outcome.out
    assert metrics_of(tmp_path / "run")["images/quarantined"] == len(left_out)
    index = rows_of(tmp_path / "run/index.csv")
    assert (
        len(index)
        == 60 + len(ODD_READABLE) + 2
        == metrics_of(tmp_path / "run")["images/train"]
        + sum(metrics_of(tmp_path / "run")[f"images/{split}"] for split in ("val", "test"))
    )
    splits = {row["file"]: row["split"] for row in index}
    for copy, original in duplicates(60, 2).items():
        assert splits[copy] == splits[original]


def test_train_offline_without_data_is_refused_with_three_remedies(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kagglehub

    def offline(handle: str) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(kagglehub, "dataset_download", offline)
    outcome = run_here("train.py", "trainer=cpu", "data.cache_dir=cache")
    outcome.assert_one_line_error()
    assert all(way in outcome.err for way in ("data.dir=...", "go online", "data=synthetic"))
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    "change",
    [
        ("~callbacks.early_stopping", "callbacks.image_logger=null", "trainer.gradient_clip_val=1", "data.cache=none"),
        ("callbacks.progress=null", "~callbacks.learning_rate", "trainer.accumulate_grad_batches=2", "optim=adamw"),
        ("model.trunk.conv_dropout=0.2", "model.trunk.batch_norm=true", "model.trunk.padding=same"),
        ("model.shared_units=[12]", "model.weight_init=kaiming_normal", "age=mse", "model.feature_dropout=0.2"),
        ("data.grayscale=false", "model.mean=[0.5,0.4,0.4]", "augment=light", "augment.cutmix=1.0"),
        ("age=huber", "tasks.age.output=relu", "tasks.gender.output=sigmoid", "tasks.age.weight=0.5"),
        ("trainer=debug", "data.limit=60", "data.num_workers=1"),
        ("age=dldl", "tasks.age.expectation=1.0", "trainer=mixed", "trainer.accelerator=cpu", "augment.mixup=0.2"),
        ("age=coral", "trainer=mixed", "trainer.accelerator=cpu"),
        ("age=classes", "trainer=mixed", "trainer.accelerator=cpu"),
    ],
    ids=" ".join,
)
def test_train_accepts_the_documented_options(run_here: Run, tmp_path: Path, change: tuple[str, ...]) -> None:
    outcome = run_here("train.py", *TINY, "trainer.max_epochs=1", *change, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    assert results["epochs"] == 1 and 0 < results["test/age_mae"] < 100


def test_age_class_accuracy_is_logged_and_may_be_monitored(run_here: Run, tmp_path: Path) -> None:
    classes = ("age=classes", "tasks.age.bin_width=20", "monitor=val/age_class_acc", "trainer.max_epochs=1")
    outcome = run_here("train.py", *TINY, *classes, "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    assert results["best_score"] == results["val/age_class_acc"] and 0 <= results["test/age_class_acc"] <= 1
    assert "age class accuracy" in outcome.out
    rows = rows_of(tmp_path / "run/predictions.csv")
    assert len({row["age_std"] for row in rows}) > 1  # each face's distribution has its own std
    assert all(
        math.sqrt(399 / 12) <= float(row["age_std"]) < 60 for row in rows
    )  # at least the std of a bin of 20 years


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gray_mae", "age_classes", "wide_heads", "rgb200_mse", "he_mse"])
def test_baseline_experiments_train_and_print_their_losses(run_here: Run, tmp_path: Path, name: str) -> None:
    drawn = ("data=synthetic", "data.synthetic.count=60", "data.synthetic.size=64", "trainer.log_every_n_steps=1")
    outcome = run_here(
        "train.py",
        f"experiment={name}",
        *drawn,
        "trainer=cpu",
        "trainer.max_epochs=1",
        "report=false",
        "hydra.run.dir=run",
    )
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    assert results["overrides"].startswith(f"experiment={name} ")
    for figure in ("loss", "age_loss", "gender_loss"):
        assert f"{results[f'test/{figure}']:.3f}" in outcome.out
    assert results["test/loss"] == pytest.approx(results["test/age_loss"] + results["test/gender_loss"], rel=1e-4)
    assert ("test/age_class_acc" in results) == (name == "age_classes")


def test_random_split_warns_that_the_test_faces_choose_the_epoch(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *TINY, "data.split=random", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    results = metrics_of(tmp_path / "run")
    assert results["val/age_mae"] == pytest.approx(results["test/age_mae"]) == results["best_score"]
    assert results["images/val"] == results["images/test"] == 24
    assert "protocol random: no test face has a copy in training; the test faces choose the epoch too" in outcome.out
    assert (
        "the epoch was chosen on the test images" in outcome.out.split("epoch 1/1")[1]
    )  # also below the table of results
    assert {row["split"] for row in rows_of(tmp_path / "run/index.csv")} == {"train", "val+test"}


def test_early_stopping_ends_the_training(run_here: Run, tmp_path: Path) -> None:
    settings = ("trainer.max_epochs=30", "optim.lr=1e-12", "callbacks.early_stopping.patience=2")
    more = ("+callbacks.early_stopping.min_delta=0.1", "callbacks.image_logger=null", "test=false")
    assert run_here("train.py", *TINY, *settings, *more, "hydra.run.dir=run").code == 0
    assert metrics_of(tmp_path / "run")["epochs"] == 3  # the first, and two without improvement


def test_train_without_the_test_writes_no_predictions_and_test_metrics(run_here: Run, tmp_path: Path) -> None:
    assert run_here("train.py", *TINY, "trainer.max_epochs=1", "test=false", "hydra.run.dir=run").code == 0
    assert not (tmp_path / "run/predictions.csv").exists()
    results = metrics_of(tmp_path / "run")
    assert "val/age_mae" in results and not any(key.startswith("test/") for key in results)


@pytest.mark.slow
def test_report_failure_does_not_fail_the_training(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/report").write_text("in the way")
    outcome = run_here("train.py", *TINY, "report=true", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert f"{metrics_of(tmp_path / 'run')['test/age_mae']:.2f}" in outcome.out
    assert "no report was written: " in outcome.out and "can't be written" in outcome.out


@pytest.mark.slow
def test_evaluation_keeps_the_calibration_and_the_split_of_the_weights(
    run_here: Run, tmp_path: Path, trained_run: Path
) -> None:
    other = ("data.split_seed=1", f"weights={trained_run}", "fit=false", "report=true", "hydra.run.dir=again")
    outcome = run_here("train.py", *TINY, *other)
    assert outcome.code == 0, outcome.err
    intervals = [
        {row["path"]: (row["age_std"], row["age_low"], row["age_high"]) for row in rows_of(run / "predictions.csv")}
        for run in (trained_run, tmp_path / "again")
    ]
    both = intervals[0].keys() & intervals[1].keys()
    assert both and all(intervals[0][path] == intervals[1][path] for path in both)
    results = metrics_of(tmp_path / "again")
    assert results["weights_split_fingerprint"] == metrics_of(trained_run)["split_fingerprint"]
    page = (tmp_path / "again/report/report.html").read_text(encoding="utf-8")
    assert "some of its test images may have been trained on" in page and "without the test images" not in page


def test_last_checkpoint_is_the_last_epoch_and_not_the_best(run_here: Run, tmp_path: Path) -> None:
    settings = ("trainer.max_epochs=3", "optim.lr=1e-12", "+callbacks.early_stopping.min_delta=0.1")
    assert run_here("train.py", *TINY, *settings, "monitor=val/gender_acc", "test=false", "hydra.run.dir=run").code == 0
    last, best = (load_checkpoint(tmp_path / f"run/checkpoints/{name}.ckpt") for name in ("last", "best"))
    assert (last["epoch"], last["global_step"]) == (2, 18)
    assert best["epoch"] == 0  # no later epoch was better


def test_train_prints_device_size_results_and_what_comes_next(run_here: Run, tmp_path: Path, trained_run: Path) -> None:
    outcome = run_here("train.py", *TINY, "name=mine", "report=true", "trainer.log_every_n_steps=20")
    assert outcome.code == 0 and outcome.err == "", outcome.err  # Lightning doesn't warn of the logging interval
    (run,) = (tmp_path / "logs/mine").iterdir()
    folder, results = run.relative_to(tmp_path), metrics_of(run)
    assert outcome.out.count("epoch 1/2: train loss ") == 1  # without a terminal: a line per epoch, no bar
    assert re.search(r"epoch 1/2: train loss \d\.\d{3}, validation loss \d\.\d{3}, age MAE ", outcome.out)
    assert f"{results['test/age_mae']:.2f}" in outcome.out and f"{results['test/gender_acc']:.2%}" in outcome.out
    assert (
        f"\non {results['hardware']}, precision 32-true: {results['parameters']:,} parameters, 2 epochs\n"
        in outcome.out
    )
    assert "\n86 training faces in 6, 8 validation faces in 1, 26 test faces in 2 batches of 16\n" in outcome.out
    assert f" mine, split {results['split_fingerprint']} " in outcome.out  # the table's title
    assert outcome.out.splitlines()[-3:] == [
        f"results: {folder}",
        f"report: {folder}/report/report.html",
        f"now: python predict.py weights={folder} img=photo.jpg",
    ]
    assert (tmp_path / folder / "report/report.html").is_file() and (run / "report/report.json").is_file()
    assert not (trained_run / "report").exists()  # trained with report=false


@pytest.mark.slow
def test_quickstart_beats_the_baseline_without_saturating(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_here("train.py", "experiment=quickstart", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    figures = metrics_of(tmp_path / "run")
    assert figures["baseline/age_mae"] > 15
    assert 2 < figures["test/age_mae"] < 0.6 * figures["baseline/age_mae"]
    assert max(figures["baseline/gender_acc"], 1 - figures["baseline/gender_acc"]) + 0.2 < figures["test/gender_acc"]
    assert figures["test/gender_acc"] < 0.99
    assert "say nothing about real people" in outcome.out


@pytest.mark.slow
def test_progress_bar_shows_both_metrics_in_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    asked = [sys.executable, str(ROOT / "train.py"), *TINY, "trainer.max_epochs=1", "hydra.run.dir=run"]
    with subprocess.Popen(
        asked, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "COLUMNS": "80"}
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # raised when the terminal closes
            while part := os.read(ours, 65536):
                seen += part
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert process.returncode == 0, text
    lines = re.split(r"[\r\n]+", text)
    assert all(len(line) <= 80 for line in lines if re.match(r"epoch|validation|test", line))
    (shown,) = {line for line in lines if line.startswith("epoch 1/1: ")}
    assert re.fullmatch(r"epoch 1/1: loss \S+ val \S+ age mae \S+ gender acc \S+%", shown.rstrip())
    assert lines[0] == "loading PyTorch and Lightning ..."
    assert "epoch 1/1: train loss" not in text  # the bar replaces the log lines


def test_flip_tta_applies_to_test_and_prediction_and_not_to_training(
    run_here: Run, tmp_path: Path, trained_run: Path
) -> None:
    given = ("tta=flip", "thresholds=[18,25]")  # both apply to an evaluation and to a prediction
    measured = run_here("train.py", *TINY, "fit=false", f"weights={trained_run}", *given, "hydra.run.dir=flipped")
    assert measured.code == 0, measured.err
    rows = rows_of(tmp_path / "flipped" / "predictions.csv")
    assert [row["age_pred"] for row in rows] != [row["age_pred"] for row in rows_of(trained_run / "predictions.csv")]
    pictures = [row["path"] for row in rows[:5]]
    assert (
        run_here("predict.py", "detect=never", *pictures, f"weights={trained_run}", *given, "out=faces.csv").code == 0
    )
    for predicted, row in zip(rows_of(tmp_path / "faces.csv"), rows, strict=False):
        assert float(predicted["age"]) == pytest.approx(float(row["age_pred"]), abs=0.01)
        for name in ("p_female", "p_age_from_18", "p_age_from_25"):
            assert float(predicted[name]) == pytest.approx(float(row[name]), abs=1e-3)
    trained = run_here("train.py", *TINY, "tta=flip", "test=false", "hydra.run.dir=trained")
    assert trained.code == 0, trained.err
    # the same training: validation uses predictions without flips
    assert metrics_of(tmp_path / "trained")["best_epoch"] == metrics_of(trained_run)["best_epoch"]
    first, second = (load_checkpoint(run / "checkpoints" / "best.ckpt") for run in (trained_run, tmp_path / "trained"))
    assert differences(first["network"], second["network"]) == []
