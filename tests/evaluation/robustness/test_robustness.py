"""`agegender robustness`: a real tiny run on drawn faces, measured, recomputed and reported."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.made_tables import half_labeled, write_table
from omegaconf import OmegaConf

from agegender.data.augmentation.corruptions import CORRUPTIONS, corrupt
from agegender.data.decode import eval_transform, reread_image
from agegender.errors import AgeGenderError
from agegender.evaluation.report.report import write_report
from agegender.evaluation.robustness.page import ABOUT, build_robustness_page, print_table
from agegender.evaluation.robustness.robustness import measure_robustness
from agegender.evaluation.statistics.bootstrap import number_clusters, resample
from agegender.evaluation.statistics.metrics import Floats
from agegender.prediction.backends.torch_backend import TorchBackend

Run = Callable[..., Outcome]
RESAMPLES = 50


def numbers_of(folder: Path) -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((folder / "robustness.json").read_text(encoding="utf-8"))
    return numbers


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def measured(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained run, measured."""
    run = tmp_path_factory.mktemp("measured") / "run"
    shutil.copytree(trained_run, run)
    page = measure_robustness(str(run), resamples=RESAMPLES, device="cpu")
    assert page == run / "robustness" / "robustness.html" and page.is_file()
    return run


@pytest.fixture
def measure_here(run_here: Run) -> Run:
    """Measures inside the test's process, as a user's command does."""
    return lambda *arguments: run_here("agegender/evaluation/robustness/__main__.py", *arguments, "device=cpu")


def test_clean_metrics_equal_those_of_the_runs_test(measured: Path) -> None:
    clean, own = numbers_of(measured / "robustness")["conditions"]["clean"], metrics_of(measured)
    for name in ("age_mae", "age_cs5", "gender_acc"):
        assert clean[name]["value"] == pytest.approx(own[f"test/{name}"], abs=1e-4), name
    assert clean["age_mae_change"] is None and clean["gender_acc_change"] is None
    assert numbers_of(measured / "robustness")["metrics"] == {
        "age": ["mae", "bias", "cs5", "coverage"],
        "gender": ["acc", "acc_from_5"],
    }


def test_every_corruption_of_the_registry_is_measured_and_described(measured: Path) -> None:
    assert list(numbers_of(measured / "robustness")["conditions"]) == ["clean", *CORRUPTIONS, "mean"]
    described = {name if name in ABOUT else name.rpartition("_")[0] for name in CORRUPTIONS}
    assert described == set(ABOUT)


def answers_of(run: Path, change: str | None) -> dict[str, Floats]:
    """Answers for a run's test faces one by one, from the files themselves."""
    network = TorchBackend(run, "cpu").network
    folder = Path(table_of(run / "predictions.csv")[0]["path"]).parent
    rows = table_of(run / "index.csv")
    found: list[list[float]] = []
    for place, row in enumerate(rows):
        if row["split"] == "test":
            pixels = eval_transform(reread_image(folder / row["file"]), network.image_size, network.in_channels == 1)
            images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
            images = images if change is None else corrupt(images, change, torch.tensor([place]))
            with torch.inference_mode():
                columns = network.predict(network(images)).values()
            found.append([float(row["age"]), float(row["gender"]), *(float(column) for column in columns)])
    names = ("age", "gender", "age_pred", "std", "low", "high", "p_female")
    return dict(zip(names, np.array(found).T, strict=True))


@pytest.mark.parametrize("change", ["noise_10", "turn"])
def test_corrupted_metrics_are_recomputed_from_the_files(measured: Path, change: str) -> None:
    clean, changed = answers_of(measured, None), answers_of(measured, change)
    errors, age = changed["age_pred"] - changed["age"], changed["age"]
    more = np.abs(errors) - np.abs(clean["age_pred"] - clean["age"])
    right = ((changed["p_female"] > 0.5) == changed["gender"]).astype(float)
    was_right = ((clean["p_female"] > 0.5) == clean["gender"]).astype(float)
    numbers = numbers_of(measured / "robustness")
    found = numbers["conditions"][change]
    for name, expected in (
        ("age_mae", np.abs(errors).mean()),
        ("age_mae_change", more.mean()),
        ("age_bias", errors.mean()),
        ("age_cs5", (np.abs(errors) <= 5).mean()),
        ("gender_acc", right.mean()),
        ("gender_acc_change", (right - was_right).mean()),
        ("gender_acc_from_5", right[age >= 5].mean()),
        ("age_coverage", ((changed["low"] <= age) & (age <= changed["high"])).mean()),
    ):
        assert found[name]["value"] == pytest.approx(expected, abs=1e-4), name
    rows = [row for row in table_of(measured / "index.csv") if row["split"] == "test"]
    clusters = number_clusters([row["duplicate_group"] for row in rows])
    samples = resample(lambda weights: (weights @ more / weights.sum(1))[:, None], clusters, RESAMPLES, 0)
    ends = np.quantile(samples, (0.025, 0.975))
    assert (found["age_mae_change"]["low"], found["age_mae_change"]["high"]) == pytest.approx(ends, abs=1e-4)
    assert numbers["photographs"] == clusters.max() + 1 and numbers["images"] == len(rows)


def test_mean_over_corruptions_is_unweighted(measured: Path) -> None:
    conditions = numbers_of(measured / "robustness")["conditions"]
    for name in ("age_mae", "age_mae_change", "gender_acc", "age_coverage"):
        expected = np.mean([conditions[change][name]["value"] for change in CORRUPTIONS])
        assert conditions["mean"][name]["value"] == pytest.approx(expected)


@pytest.mark.usefixtures("undrawn")
def test_report_shows_the_measurement_and_how_it_was_made(measured: Path) -> None:
    page = write_report([measured], measured.parent / "report", resamples=RESAMPLES, faces=0)
    numbers = numbers_of(measured / "robustness")
    (reported,) = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))["runs"]
    assert reported["robustness"] == numbers
    for end in ("low", "value", "high"):  # of the same faces drawn with the same seed, but answers rounded to 0.001
        own = reported["headline"]["age_mae"][end]
        assert own == pytest.approx(numbers["conditions"]["clean"]["age_mae"][end], abs=1e-3)
    text = page.read_text(encoding="utf-8")
    assert "<td>resolution_40</td>" in text and f"measured by {numbers['command']}" in text


@pytest.mark.usefixtures("undrawn")
def test_report_of_a_run_that_was_not_measured_names_the_command(trained_run: Path, tmp_path: Path) -> None:
    text = write_report([trained_run], tmp_path, resamples=5, faces=0).read_text(encoding="utf-8")
    assert f"agegender robustness run={trained_run}" in text
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["runs"][0]["robustness"] is None


def test_report_refuses_a_damaged_measurement_in_one_line(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "run")
    (tmp_path / "run/robustness/robustness.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        AgeGenderError, match=r"robustness\.json is damaged: remove it, or measure again with agegender robustness"
    ):
        write_report([tmp_path / "run"], tmp_path / "out", resamples=5, faces=0)


# The command


def test_robustness_command_is_reproducible_and_prints_the_table(measure_here: Run, measured: Path) -> None:
    numbers = numbers_of(measured / "robustness")
    before = {path.name: path.read_bytes() for path in (measured / "robustness").iterdir()}
    assert set(before) == {
        *("robustness.html", "robustness.json", "robustness_age_mae_change.png", "robustness_age_coverage.png"),
        "robustness_gender_acc_change.png",
    }
    outcome = measure_here(*shlex.split(numbers["command"])[2:])
    assert outcome.code == 0, outcome.err
    assert {path.name: path.read_bytes() for path in (measured / "robustness").iterdir()} == before
    mae = numbers["conditions"]["jpeg_10"]["age_mae"]["value"]
    assert any(line.split()[:2] == ["jpeg_10", f"{mae:.2f}"] for line in outcome.out.splitlines())
    assert outcome.out.splitlines()[-1] == f"page: {measured / 'robustness' / 'robustness.html'}"


@pytest.mark.usefixtures("undrawn")
def test_evaluation_run_is_measured_with_its_weights_and_tta(
    run_here: Run, measure_here: Run, trained_run: Path, tmp_path: Path
) -> None:
    outcome = run_here("train.py", *TINY, "fit=false", "tta=flip", f"weights={trained_run}", "hydra.run.dir=tested")
    assert outcome.code == 0, outcome.err
    outcome = measure_here("run=tested", "resamples=5")
    assert outcome.code == 0, outcome.err
    numbers = numbers_of(tmp_path / "tested" / "robustness")
    assert numbers["tta"] == "flip"
    clean = numbers["conditions"]["clean"]["age_mae"]["value"]
    assert clean == pytest.approx(metrics_of(tmp_path / "tested")["test/age_mae"], abs=1e-4)
    assert clean != pytest.approx(metrics_of(trained_run)["test/age_mae"], abs=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_metrics_of_a_partly_labeled_table_use_present_labels_only(
    run_here: Run, measure_here: Run, trained_run: Path, faces: Path, tmp_path: Path
) -> None:
    write_table(tmp_path / "labels.csv", half_labeled(faces))
    data = ("data=table", "data.table=labels.csv", f"data.dir={faces}", "data.split=test")
    model = [setting for setting in TINY if not setting.startswith("data")]
    outcome = run_here("train.py", *model, *data, "fit=false", f"weights={trained_run}", "hydra.run.dir=tested")
    assert outcome.code == 0, outcome.err
    outcome = measure_here("run=tested", "resamples=5")
    assert outcome.code == 0, outcome.err
    numbers, own = numbers_of(tmp_path / "tested" / "robustness"), metrics_of(tmp_path / "tested")
    assert 0 < numbers["known"]["age"] == own["images/test/with_age"] < numbers["images"] == own["images/test"]
    assert 0 < numbers["known"]["gender"] == own["images/test/with_gender"] < numbers["images"]
    clean = numbers["conditions"]["clean"]
    for name in ("age_mae", "gender_acc"):
        assert clean[name]["value"] == pytest.approx(own[f"test/{name}"], abs=1e-4), name
    (warning,) = numbers["warnings"]
    assert own["weights_split_fingerprint"] in warning and own["split_fingerprint"] in warning


def test_page_and_table_of_metrics_without_any_face_leave_them_out(
    measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = numbers_of(measured / "robustness")
    for found in numbers["conditions"].values():
        found |= {name: None for name in found if name.startswith("age_")}
    page = build_robustness_page(numbers)
    right = r"right about gender for \d+ of 100\."
    assert re.fullmatch(f"Unchanged faces: {right} Mean of the changes: {right}", page.sentence)
    (table,) = page.sections[0].tables
    assert len(table.rows) == len(CORRUPTIONS) + 2 and {len(row) for row in table.rows} == {len(table.header)}
    assert table.rows[0][:8] == [
        "clean",
        *[""] * 6,
        "{:.2f}".format(100 * numbers["conditions"]["clean"]["gender_acc"]["value"]),
    ]
    assert [plot.name for plot in page.sections[1].plots] == ["robustness_gender_acc_change"]
    print_table(numbers)
    assert "nan" not in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_bundled_weights_are_measured_on_a_folder_by_their_own_split_rule(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = measure_robustness("small", data_dir=str(faces), limit=3, resamples=5, device="cpu")
    assert page == Path("logs/robustness/small/robustness.html")
    numbers = numbers_of(page.parent)
    assert numbers["images"] == 3 and numbers["checkpoint"] == "small.ckpt" and len(numbers["warnings"]) == 1
    assert shlex.split(numbers["command"])[2:] == ["run=small", f"data_dir={faces}", "limit=3", "resamples=5"]


def test_limit_is_nested_in_a_larger_limit(trained_run: Path, tmp_path: Path) -> None:
    from agegender.evaluation.robustness.rebuilt_run import find_origin, rebuild

    parts = [set(rebuild(find_origin(str(trained_run)), limit=limit).faces.rows.tolist()) for limit in (3, 9, None)]
    assert [len(part) for part in parts[:2]] == [3, 9] and parts[0] < parts[1] < parts[2]


def test_leak_of_the_split_is_among_the_warnings(faces: Path, tmp_path: Path) -> None:
    from agegender.evaluation.robustness.rebuilt_run import find_origin, rebuild

    shutil.copytree(faces, tmp_path / "faces")
    with (tmp_path / "split.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "split"])
        for number, path in enumerate(sorted(faces.iterdir())):
            copy = path.name.replace("_2", "_3", 1)
            shutil.copy(path, tmp_path / "faces" / copy)
            writer.writerows(
                [[path.name, "test" if number < 4 else "train"], [copy, "test" if number < 2 else "train"]]
            )
    data = {"dir": str(tmp_path / "faces"), "split_file": str(tmp_path / "split.csv"), "cache_dir": str(tmp_path)}
    rebuilt = rebuild(replace(find_origin("small"), data=data), device="cpu")
    leak = "2 of 6 test faces have a copy among the 234 training faces"
    assert rebuilt.warnings[1:] == [f"Protocol file split.csv: {leak}, so the metrics are optimistic."]


GLASSES = "+tasks.glasses={_target_: agegender.tasks.Binary, label: glasses, classes: [no, yes]}"


@pytest.mark.usefixtures("undrawn")
def test_further_tasks_are_measured_and_reported_without_gender(
    run_here: Run, measure_here: Run, tmp_path: Path
) -> None:
    settings = ("tasks=age_gender_ethnicity", "~tasks.gender", GLASSES, "data.synthetic.glasses=true")
    outcome = run_here("train.py", *TINY, *settings, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    outcome = measure_here("run=run", "resamples=5")
    assert outcome.code == 0, outcome.err
    numbers, own = numbers_of(tmp_path / "run" / "robustness"), metrics_of(tmp_path / "run")
    assert list(numbers["metrics"]) == ["age", "ethnicity", "glasses"]
    for name in ("age_mae", "ethnicity_acc", "glasses_acc"):
        assert numbers["conditions"]["clean"][name]["value"] == pytest.approx(own[f"test/{name}"], abs=1e-3), name
        assert numbers["conditions"]["jpeg_10"][f"{name}_change"] is not None
    page = write_report([tmp_path / "run"], resamples=5, faces=2)
    (run,) = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))["runs"]
    for name in ("age_mae", "ethnicity_acc", "glasses_acc", "glasses_auroc"):
        assert run["headline"][name]["value"] == pytest.approx(own[f"test/{name}"], abs=1e-3), name
    assert list(run["slices"]) == ["age", "group", "glasses", "gender"]
    assert {f"curve_{name}" for name in ("ethnicity_loss", "glasses_acc")} <= {
        path.stem for path in page.parent.glob("*.png")
    }
    text = page.read_text(encoding="utf-8")
    assert "Glasses confusion" in text and "<td>glasses accuracy, %</td>" in text


@pytest.fixture(scope="module")
def unmeasurable(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that can't be measured. Read only."""
    folder = tmp_path_factory.mktemp("unmeasurable")
    (folder / "empty").mkdir()
    for name, data in (
        ("streamed", {"_target_": "agegender.data.streaming.datamodule.StreamingDataModule", "dir": "packed"}),
        ("moved", {"synthetic": None, "dir": "gone"}),
        ("damaged", {}),
    ):
        shutil.copytree(trained_run / "checkpoints", folder / name / "checkpoints")
        config = OmegaConf.load(trained_run / ".hydra" / "config.yaml")
        (folder / name / ".hydra").mkdir()
        OmegaConf.save({**config, "data": {**config.data, **data}}, folder / name / ".hydra" / "config.yaml")
    (folder / "damaged/.hydra/config.yaml").write_text("data: [", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"run": "nowhere"}, "run=nowhere does not exist; give a run's folder"),
        ({"run": "empty"}, "empty has no best checkpoint"),
        ({"run": "small"}, "run=small has no recorded data folder: add data_dir="),
        ({"run": "streamed"}, "run=streamed was trained from packed shards (data=streaming)"),
        ({"run": "moved"}, "the faces of run=moved are not in gone any more: give their folder with data_dir="),
        ({"run": "damaged"}, "damaged/.hydra/config.yaml is damaged"),
        ({"run": "moved", "data_dir": "gone"}, "data_dir=gone is not a folder"),
        ({"run": "small", "limit": 0}, "limit=0 must be at least 1"),
    ],
)
def test_robustness_refuses_what_it_cannot_measure(
    unmeasurable: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], line: str
) -> None:
    monkeypatch.chdir(unmeasurable)
    with pytest.raises(AgeGenderError) as refused:
        measure_robustness(**settings, device="cpu")
    assert line in str(refused.value) and "\n" not in str(refused.value)
    assert not list(unmeasurable.glob("*/robustness"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("run=empty",), "empty has no best checkpoint"),
        (("run=small", "tta=mirror"), "tta='mirror' has the wrong type"),
    ],
)
def test_robustness_command_refuses_what_it_cannot_measure_in_one_line(
    measure_here: Run, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    (tmp_path / "empty").mkdir()
    outcome = measure_here(*arguments)
    assert outcome.out == ""
    outcome.assert_one_line_error(line)
    assert not list(tmp_path.glob("*/robustness"))
