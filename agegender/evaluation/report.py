"""Report on a trained model's test predictions: `python -m agegender.evaluation.report run=logs/...`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from agegender.cli import launch, one_line_errors, quoted
from agegender.errors import AgeGenderError
from agegender.files import write_whole

if TYPE_CHECKING:
    from agegender.evaluation.comparison import Report

_CONF = Path(__file__).parents[2] / "conf"
_DEFAULTS = {"resamples": 2000, "faces": 24, "seed": 0}


def report_arguments(arguments: Sequence[str], folders: Sequence[str] = ("run", "out")) -> list[str]:
    """Quote the folders on a command line, so that Hydra's grammar leaves them unchanged.

    Hydra reads commas, spaces, brackets and `=` in a value as syntax: `run=a,b` would be a sweep. Here it means two
    folders, unless a folder has that name. A value in brackets or quotes is left to Hydra, unless a folder has that
    name.

    Args:
        arguments: Arguments after the program's name.
        folders: Keys of the settings that name folders.
    """
    return [_folder_argument(argument, folders) for argument in arguments]


def _folder_argument(argument: str, folders: Sequence[str]) -> str:
    key, _, value = argument.partition("=")
    names = _folders(value) if key == "run" else [value]
    if key not in folders or not names or _is_hydras(value):
        return argument
    return f"{key}={quoted(names[0])}" if len(names) == 1 else f"{key}={_list(names)}"


def _is_hydras(value: str) -> bool:
    return not os.path.lexists(value) and (value in ("", "null") or value[0] in "[('\"")


def _folders(value: str) -> list[str]:
    return [value] if os.path.lexists(value) else [name for name in value.split(",") if name]


def _list(names: Sequence[str]) -> str:
    return f"[{','.join(map(quoted, names))}]"


def report_command(runs: Sequence[Path], out: Path | None, settings: dict[str, int]) -> str:
    """Return the shell command that makes a report; settings at their defaults are left out."""
    names = [shown_path(run) for run in runs]
    value = ",".join(names)
    if _folders(value) != names or _is_hydras(value):
        value = _list(names)
    arguments = [f"run={value}", *([f"out={shown_path(out)}"] if out is not None else [])]
    arguments += [f"{name}={number}" for name, number in settings.items() if number != _DEFAULTS[name]]
    return f"python -m agegender.evaluation.report {shlex.join(arguments)}"


def shown_path(path: Path) -> str:
    """Return the path relative to the current folder if it lies below it, else unchanged."""
    whole = path.resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(path)


def write_report(
    runs: Sequence[Path], out: Path | None = None, *, resamples: int = 2000, faces: int = 24, seed: int = 0
) -> Path:
    """Write a report on one run, or on two side by side: `report.html`, `report.json` and each plot as a PNG.

    Args:
        runs: Folders of finished runs.
        out: Output folder; None for `report` in the run's folder, or `report_with_<second run>` in the first one's.
        resamples: Number of bootstrap resamples.
        faces: Number of faces in each row.
        seed: Random seed of the resamples and of the random faces; the same runs and seed give the same values.

    Returns:
        Path of the page.

    Raises:
        AgeGenderError: More than two runs, a missing or damaged file, or a folder that can't be written.
    """
    return _write(runs, out, {"resamples": resamples, "faces": faces, "seed": seed})[0]


def _write(runs: Sequence[Path], out: Path | None, settings: dict[str, int]) -> tuple[Path, Report]:
    # matplotlib and other slow imports: `--help` and errors in the settings don't wait for them
    from agegender.evaluation.comparison import build_report, report_json
    from agegender.evaluation.page import write_page
    from agegender.evaluation.report_page import build_page

    report = build_report([Path(shown_path(run)) for run in runs], settings, report_command(runs, out, settings))
    names = [run.resolve().name for run in runs]
    folder = out or runs[0] / ("report" if len(runs) == 1 else f"report_with_{names[1]}")
    page, numbers = build_page(report), report_json(report)
    try:
        write_page(page, folder / "report.html", plots=folder)
        with write_whole(folder / "report.json", "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1, allow_nan=False)
            file.write("\n")
    except OSError as error:
        raise AgeGenderError(
            f"{folder} can't be written ({error.strerror}); give another folder with out=..."
        ) from None
    return folder / "report.html", report


def report(
    run: str | list[str] | None, out: str | None = None, resamples: int = 2000, faces: int = 24, seed: int = 0
) -> None:
    """Write a report and print its headline metrics.

    Args:
        run: A run's folder, a folder of runs (its newest is taken), two of either, or None for the newest run of all.
        out: See `write_report`.
        resamples: See `write_report`.
        faces: See `write_report`.
        seed: See `write_report`.

    Raises:
        AgeGenderError: See `write_report`.
    """
    from agegender.evaluation.report_page import headline_lines
    from agegender.evaluation.run_files import find_runs

    settings = {"resamples": resamples, "faces": faces, "seed": seed}
    page, made = _write(find_runs(run), Path(out) if out else None, settings)
    for label, each in made.runs.items():
        print(f"{label}: {each.folder}" if label else each.folder)
    print("\n".join(headline_lines(made)))
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(page)


@hydra.main(version_base="1.3", config_path=str(_CONF), config_name="report")
def main(config: DictConfig) -> None:
    """Writes the report."""
    from agegender.signatures import check_call

    with one_line_errors():
        settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        check_call("", settings, report)
        report(**settings)


if __name__ == "__main__":
    sys.argv[1:] = report_arguments(sys.argv[1:])
    launch(main, "report", _CONF)
