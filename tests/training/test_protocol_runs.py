"""Runs of a protocol other than the default: what they record, evaluate and resume."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, Outcome, metrics_of, run_in
from helpers.composed import RefusalOf, refusal_of
from omegaconf import OmegaConf

from agegender.api import compose_config
from agegender.evaluation.report.analysis import analyze
from agegender.evaluation.report.facts import facts_of
from agegender.evaluation.report.run_reader import read_run
from agegender.runs.checkpoint import load_checkpoint

Run = Callable[..., Outcome]
LINE = "protocol folds: no test face has a copy in training; fold 1 of 2, counted from 0"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a sweep over the two folds of 120 drawn faces."""
    where = tmp_path_factory.mktemp("folds")
    sweep = (
        "-m",
        "protocol=folds",
        "data.folds=2",
        "data.fold=0,1",
        "hydra.sweep.dir=sweep",
        "hydra.verbose=agegender",
        "callbacks.image_logger=null",
    )
    told = run_in(where, "train.py", *sweep, *TINY, "trainer.max_epochs=1")
    assert told.count("\nprotocol ") == 2 and LINE in told
    return where / "sweep"


def test_sweep_over_folds_tests_each_face_once(swept: Path) -> None:
    runs = [swept / str(fold) for fold in range(2)]
    tested = [line.split(",")[0] for run in runs for line in (run / "predictions.csv").read_text().splitlines()[1:]]
    assert len(tested) == len(set(tested)) == 120
    assert len({metrics_of(run)["split_fingerprint"] for run in runs}) == 2


def test_run_of_a_fold_records_protocol_and_leak(swept: Path) -> None:
    results = metrics_of(swept / "1")
    sizes = {name: results[f"images/{name}"] for name in ("train", "val", "test")}
    recorded = {name: value for name, value in results.items() if name.startswith(("protocol", "leak", "split"))}
    assert recorded == {
        "split": "folds",
        "split_fingerprint": results["split_fingerprint"],
        "protocol": "folds",
        "leak": "no test face has a copy in training",
        "leak/test": sizes["test"],
        "leak/training": sizes["train"] + sizes["val"],
        "leak/with_copy": 0,
    }
    split = load_checkpoint(swept / "1/checkpoints/best.ckpt")["agegender"]["split"]
    assert (split["protocol"], split["split"], split["fold"], split["folds"]) == ("folds", "folds", 1, 2)


def test_report_of_a_fold_has_the_protocol_among_its_facts(swept: Path) -> None:
    run = read_run(swept / "1")
    assert facts_of(run, analyze(run.predictions, 2, 1, 0))["protocol"] == "folds: no test face has a copy in training"


def test_evaluation_of_a_fold_repeats_its_test(swept: Path, run_here: Run, tmp_path: Path) -> None:
    fold = ("protocol=folds", "data.folds=2", "data.fold=1")
    outcome = run_here("train.py", *fold, *TINY, "fit=false", f"weights={swept / '1'}", "hydra.run.dir=again")
    assert outcome.code == 0 and LINE in outcome.out and "too optimistic" not in outcome.out, outcome.err
    assert metrics_of(tmp_path / "again")["test/age_mae"] == metrics_of(swept / "1")["test/age_mae"]


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (["data.fold=0"], ["data.fold was 1 and is 0", "the images' split was"]),
        (["protocol=fivefold_benchmark", "data.folds=5"], ["data.split was folds and is fivefold_benchmark"]),
        (["protocol=clean"], ["data.split=content has no folds"]),
    ],
)
def test_resume_with_another_protocol_is_refused(
    swept: Path, run_here: Run, settings: list[str], changes: list[str]
) -> None:
    outcome = run_here("train.py", f"resume={swept / '1'}", *settings, "trainer.max_epochs=2")
    outcome.assert_one_line_error(*changes)


def test_fold_without_its_protocol_is_an_error_in_one_line(refusal_of: RefusalOf) -> None:
    assert "data.split=content has no folds: set protocol=" in refusal_of(*TINY, "data.fold=1")
    assert "data.fold=5 must lie between 0 and 4" in refusal_of(*TINY, "protocol=folds", "data.fold=5")


def test_packed_faces_refuse_a_protocol(refusal_of: RefusalOf) -> None:
    line = refusal_of("data=streaming", "data.dir=shards", "protocol=folds")
    assert "data.split=folds: packed faces have their pack's split" in line and "agegender pack" in line


@pytest.mark.parametrize("name", ["clean", "random", "coral", "folds", "fivefold_benchmark"])
def test_protocol_changes_settings_of_data_only(name: str) -> None:
    plain, chosen = (
        OmegaConf.to_container(compose_config(given), resolve=False) for given in ([], [f"protocol={name}"])
    )
    assert isinstance(plain, dict) and isinstance(chosen, dict)
    differing = {key for key in plain if plain[key] != chosen[key]} - {"hydra"}
    assert plain.keys() == chosen.keys() and differing == ({"data"} if name != "clean" else set())
    changed = {key for key in plain["data"] if plain["data"][key] != chosen["data"][key]}
    assert changed <= {"split", "fold", "folds", "age_range", "duplicates"}


def test_protocol_leaves_the_split_of_a_users_own_data_config(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    own = "defaults: [utkface]\nsplit_seed: 3\nduplicates: exact\n"
    (tmp_path / "data" / "own.yaml").write_text(own, encoding="utf-8")
    given = ["data=own", "protocol=folds", "data.fold=4", "data.duplicates=near"]
    data = compose_config(given[:1], config_dir=str(tmp_path)).data
    assert (data.split, data.split_seed, data.duplicates, data.fold) == ("content", 3, "exact", None)
    data = compose_config(given, config_dir=str(tmp_path)).data
    assert (data.split, data.split_seed, data.duplicates, data.fold, data.folds) == ("folds", 3, "near", 4, 5)


def test_experiment_coral_protocol_takes_the_published_lists() -> None:
    data = compose_config(["experiment=coral_protocol"]).data
    assert (data.split, list(data.age_range), data.duplicates) == ("coral", [21, 60], "none")
    assert compose_config(["experiment=coral_protocol", "protocol=clean"]).data.split == "content"
