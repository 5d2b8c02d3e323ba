"""`agegender report` as a user runs it, and as the end of a training calls it."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Outcome, metrics_of
from helpers.made_runs import GENDER, Made, make_run
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from agegender.config.overrides import report_overrides
from agegender.errors import AgeGenderError
from agegender.evaluation.report.report import report_command, write_report

Run = Callable[..., Outcome]
QUICK = ("resamples=50", "faces=2")


class Reader(HTMLParser):
    """What a browser would read: the cells of every table, the text, each picture, and every address."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.plots: dict[str, bytes] = {}
        self.faces: list[bytes] = []
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self._tag, self._figure = "", ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name: value or "" for name, value in attrs}
        self._tag = tag
        self.ids |= {names["id"]} if "id" in names else set()
        self.addresses += [names[name] for name in ("src", "href", "action", "data", "srcset") if name in names]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "figure":
            self._figure = names.get("id", "")
        elif tag == "img" and self._figure:
            self.plots[self._figure] = base64.b64decode(names["src"].partition(",")[2])
        elif tag == "img":
            self.faces.append(base64.b64decode(names["src"].partition(",")[2]))

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        if self._tag in ("td", "th"):
            self.rows[-1][-1] += data
        if self._tag != "style":
            self.text += data

    def row(self, name: str) -> list[str]:
        return next(row[1:] for row in self.rows if row and row[0] == name)


def numbers_of(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (folder / "report.json").read_text(encoding="utf-8")
    numbers: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return numbers


def answers(error: float = 2.0) -> list[Made]:
    return [Made(f"{i}.jpg", 5 * i, 5 * i + error, i % 2, 0.2 + 0.05 * i, i % 5) for i in range(12)]


@pytest.fixture(scope="module")
def reported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run's folder with its report in it."""
    run = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("checkpoints"))
    assert write_report([run]) == run / "report" / "report.html"
    return run


@pytest.fixture
def report_here(run_here: Run) -> Run:
    """Reports inside the test's process."""
    return lambda *arguments: run_here("agegender/evaluation/report/__main__.py", *arguments)


# A real run


def test_report_page_is_self_contained_and_every_image_opens(reported: Path) -> None:
    page = Reader(reported / "report" / "report.html")
    links = {address[1:] for address in page.addresses if address.startswith("#")}
    assert links and links <= page.ids
    assert all(address.startswith(("#", "data:image/")) for address in page.addresses)
    (run,) = numbers_of(reported / "report")["runs"]
    assert len(page.faces) == len(run["random"]) + sum(len(task["worst"]) for task in run["tasks"].values())
    for content in (*page.plots.values(), *page.faces):
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert min(picture.size) >= 64


def test_report_writes_each_plot_beside_the_page(reported: Path) -> None:
    page = Reader(reported / "report" / "report.html")
    files = {path.stem: path.read_bytes() for path in (reported / "report").glob("*.png")}
    assert files == page.plots
    names = {"loss", "age_loss", "gender_loss", "age_mae", "age_mse", "age_cs5", "gender_acc", "gender_auroc"}
    assert {f"curve_{name}" for name in names} <= set(files)
    assert {"age_true_vs_predicted", "age_cumulative_score", "gender_roc", "gender_confusion"} <= set(files)
    assert {"gender_reliability", "age_coverage"} <= set(files)
    assert {f"{what}_by_{kind}" for what in ("age_mae", "gender_acc") for kind in ("age", "gender", "group")} <= set(
        files
    )
    others = {path.name for path in (reported / "report").iterdir() if path.suffix != ".png"}
    assert others == {"report.html", "report.json"}


def test_report_metrics_equal_those_of_the_run(reported: Path) -> None:
    known = metrics_of(reported)
    (run,) = numbers_of(reported / "report")["runs"]
    page = Reader(reported / "report" / "report.html")
    # the run measured the answers before they were rounded for predictions.csv
    for name, row, factor, digits, rounding in (
        ("age_mae", "age MAE, years", 1, 2, 6e-4),
        ("age_cs5", "CS@5, %", 100, 1, 1e-6),
        ("gender_acc", "gender accuracy, %", 100, 2, 1e-6),
        ("gender_auroc", "gender AUROC", 1, 4, 1e-4),
    ):
        held = run["headline"][name]
        assert held["value"] == pytest.approx(known[f"test/{name}"], abs=rounding), name
        assert held["low"] <= held["value"] <= held["high"]
        value, interval, *_ = page.row(row)
        assert value == f"{factor * held['value']:.{digits}f}"
        assert interval == f"{factor * held['low']:.{digits}f} to {factor * held['high']:.{digits}f}"
    assert run["images"] == known["images/test"] == sum(part["images"] for part in run["slices"]["age"])
    assert run["baseline"]["age_mae"] == pytest.approx(known["baseline/age_mae"])
    assert run["split_fingerprint"] == known["split_fingerprint"] and run["split_fingerprint"] in page.text
    assert run["curves"]["val/age_mae"]["epoch"] == [1, 2]
    assert min(run["curves"]["val/age_mae"]["value"]) == pytest.approx(known["best_score"], abs=1e-4)
    assert "say nothing about real people" in page.text  # the fixture's faces are drawn


@pytest.mark.slow
def test_report_is_reproducible_by_its_own_command(reported: Path, report_here: Run, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    shutil.copytree(reported, tmp_path / "logs/again", ignore=shutil.ignore_patterns("report"))
    assert report_here("run=logs/again").code == 0
    again = tmp_path / "logs/again/report"
    command = numbers_of(again)["command"]
    assert command == "agegender report run=logs/again"
    first = {path.name: path.read_bytes() for path in again.iterdir()}
    assert report_here(*shlex.split(command)[2:]).code == 0
    assert {path.name: path.read_bytes() for path in again.iterdir()} == first
    others = numbers_of(reported / "report")["runs"][0]
    assert {**numbers_of(again)["runs"][0], "run": "run"} == others  # wherever the folder lies


# The command


def as_module(*arguments: str, cwd: Path, python: tuple[str, ...] = ()) -> Outcome:
    """Runs the module by its name, in a process of its own, from any folder."""
    command = [sys.executable, *python, "-m", "agegender.evaluation.report", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_report_process_compares_two_runs_and_writes_the_report_only(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "logs/a", answers(3)), make_run(tmp_path / "logs/b", answers(1.5))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    outcome = as_module("run=logs/a,logs/b", *QUICK, cwd=tmp_path)
    assert outcome.code == 0 and "Warning" not in outcome.err, outcome.err
    folder = first / "report_with_b"
    lines = outcome.out.splitlines()
    assert lines[:2] == ["A: logs/a", "B: logs/b"] and lines[-1] == "logs/a/report_with_b/report.html"
    assert lines[2] == (
        "age MAE, years: A 3.00 (3.00 to 3.00), B 1.50 (1.50 to 1.50), B minus A -1.50 (-1.50 to -1.50)"
    )
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file() and path not in before} == {folder}
    numbers = numbers_of(folder)
    assert [run["run"] for run in numbers["runs"]] == ["a", "b"] and numbers["resamples"] == 50
    assert shlex.split(numbers["command"])[2:] == ["run=logs/a,logs/b", *QUICK]
    assert Reader(folder / "report.html").row("age MAE, years")[4] == "-1.50"
    assert second.joinpath("predictions.csv").is_file()


def test_report_help_and_misspelled_settings_skip_slow_imports(tmp_path: Path) -> None:
    outcome = as_module("--help", cwd=tmp_path, python=("-X", "importtime"))
    assert outcome.code == 0 and "resamples=2000" in outcome.out
    assert "hydra" in outcome.err and not any(name in outcome.err for name in ("matplotlib", "torch", "numpy"))


@pytest.mark.usefixtures("undrawn")
def test_report_without_a_run_uses_the_newest_below_logs(report_here: Run, tmp_path: Path) -> None:
    old, new = (make_run(tmp_path / "logs" / name, answers(), tasks=(GENDER,)) for name in ("x/old", "y/new"))
    os.utime(old / "predictions.csv", (1e9, 1e9))
    assert report_here("run=null", *QUICK).out.startswith("logs/y/new\n")
    assert report_here("run=logs/x", *QUICK, "out=else where").code == 0
    assert (tmp_path / "else where/report.html").is_file() and not (old / "report").exists()
    assert (new / "report/report.html").is_file()


@pytest.mark.usefixtures("undrawn")
def test_report_warns_of_different_splits_on_the_terminal(report_here: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "a", answers())
    make_run(tmp_path / "b", answers(), {"split_fingerprint": "other"})
    outcome = report_here("run=a,b", *QUICK)
    assert outcome.code == 0 and outcome.err.startswith(
        "warning: The runs were split differently (A: abc123, B: other)"
    )
    assert "can&#39;t be compared" in (tmp_path / "a/report_with_b/report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("run=a,b,c",), "one run or two, not 3"),
        (("run=nowhere",), "run=nowhere does not exist; give a run's folder"),
        (("run=a,a",), "names a twice"),
        (("run=untested",), "untested has no predictions.csv: run its test first, agegender train fit=false"),
        (("run=damaged",), "damaged/predictions.csv is damaged (line 2: no column 'path')"),
        (("run=a", "out=a/metrics.json"), "a/metrics.json can't be written"),
        (("run=a", "resamples=0"), "resamples=0 must be at least 1"),
        (("run=a", "faces=many"), "faces='many' has the wrong type"),
        (("run=[1]",), "run=1 does not exist"),
    ],
)
def test_report_refuses_wrong_arguments_in_one_line(
    report_here: Run, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    for name in "abc":
        make_run(tmp_path / name, answers())
    (tmp_path / "untested/checkpoints").mkdir(parents=True)
    make_run(tmp_path / "damaged", answers())
    (tmp_path / "damaged/predictions.csv").write_text("age,gender\n3,1\n", encoding="utf-8")
    outcome = report_here(*arguments)
    assert outcome.out == ""
    outcome.assert_one_line_error(line)


def test_report_suggests_the_nearest_setting(report_here: Run) -> None:
    outcome = report_here("resample=5")
    assert (outcome.code, outcome.err) == (2, "error: resample is not known; did you mean resamples?\n")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["[o'neill] $x_y$ {z}, \\日本", "null"])
def test_report_accepts_any_run_name(report_here: Run, tmp_path: Path, name: str) -> None:
    make_run(tmp_path / name, answers(), tasks=(GENDER,))
    make_run(tmp_path / "other", answers(1), tasks=(GENDER,))
    outcome = report_here(f"run={name}", *QUICK)
    assert outcome.code == 0, outcome.err
    assert numbers_of(tmp_path / name / "report")["runs"][0]["run"] == name
    command = numbers_of(tmp_path / name / "report")["command"]
    assert report_here(*shlex.split(command)[2:]).code == 0
    report = write_report([tmp_path / "other", tmp_path / name], resamples=5, faces=0)
    assert report == tmp_path / "other" / f"report_with_{name}" / "report.html"


@pytest.mark.usefixtures("undrawn")
def test_report_shows_file_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"<b>\xff.jpg")
    run = make_run(tmp_path / "run", [Made(name, gender=1), Made("b.jpg")])
    page = write_report([run], resamples=5)
    assert "&lt;b&gt;?.jpg" in page.read_text(encoding="utf-8")
    assert name in [case["file"] for case in numbers_of(page.parent)["runs"][0]["random"]]


@pytest.mark.usefixtures("undrawn")
def test_report_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", answers(), tasks=(GENDER,))
    (run / "report").touch()
    with pytest.raises(AgeGenderError, match=r"run/report can't be written .*give another folder with out="):
        write_report([run], resamples=5, faces=0)


# Command lines, there and back

FOLDERS = st.text(st.sampled_from("ab1 .é'\"\\${}[](),=:~+-/"), min_size=1, max_size=8) | st.text(
    min_size=1, max_size=8
)
NAMES = FOLDERS.filter(lambda name: "\0" not in name and not name.startswith("/") and ".." not in name)


def as_hydra_reads(argument: str) -> Any:
    (override,) = OverridesParser.create().parse_overrides([argument])
    value = override.value()
    read = OmegaConf.to_container(OmegaConf.create({"read": value}), resolve=True)
    assert isinstance(read, dict)
    return read["read"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("run=logs/a,logs/b", ["logs/a", "logs/b"]),
        ("run=logs/default/2026-11-21_08-05-44", "logs/default/2026-11-21_08-05-44"),
        ("run=a (1)", "a (1)"),
        ("run=12", "12"),
        ("run=${x}", "${x}"),
        ("run=a,", "a"),
        ("run=[a,b]", ["a", "b"]),
        ("run='a,b'", "a,b"),
        ("out=a,b", "a,b"),
        ("run=null", None),
    ],
)
def test_report_arguments_keep_folder_names_verbatim(argument: str, value: Any) -> None:
    (rewritten,) = report_overrides([argument])
    assert as_hydra_reads(rewritten) == value


def test_existing_folder_with_a_comma_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    (tmp_path / "[x]").mkdir()
    assert report_overrides(["run=a,b", "run=[x]"]) == ["run='a,b'", "run='[x]'"]


def test_report_arguments_other_than_folders_are_unchanged() -> None:
    others = ["--help", "resamples=5", "-cn", "seed=1,2", "run", "runs=a,b", "out=null", "run="]
    assert report_overrides(others) == others


@given(st.lists(NAMES, min_size=1, max_size=2))
@example(["a,b", "c"])
@example(["null"])
@example(["[a]", "'b'"])
def test_report_command_names_its_runs(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as empty:  # where no folder of such a name is
        before = Path.cwd()
        os.chdir(empty)
        try:
            runs = [Path(name) for name in names]
            words = shlex.split(report_command(runs, None, {"resamples": 2000, "faces": 3, "seed": 0}))
            run, *settings = report_overrides(words[2:])
        finally:
            os.chdir(before)
    read = as_hydra_reads(run)
    assert [Path(name) for name in ([read] if isinstance(read, str) else read)] == runs
    assert settings == ["faces=3"]
