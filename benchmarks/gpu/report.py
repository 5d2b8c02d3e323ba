"""The results of all steps: a Markdown table, a JSON file, and one archive of logs and records."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from agegender.system.files import atomic_write
from agegender.training.results import cpu_name
from benchmarks.gpu.runner import Outcome, Setup

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "hydra-core", "numpy")
# The records of a run; its checkpoints are too large to bring along.
RECORDS = ("metrics.json", "predictions.csv", "csv/metrics.csv", ".hydra/overrides.yaml")


def machine(device: str) -> dict[str, str]:
    """Return the card, the driver, the processor and the versions."""
    found = {"processor": cpu_name(), "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # such as lightning, installed under another name
            found[name] = "unknown"
    if device == "cuda":
        found |= {"card": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda), "driver": _driver()}
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return "unknown (no nvidia-smi)"
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def write_results(setup: Setup, outcomes: Sequence[Outcome], command: str) -> None:
    """Write `RESULTS.md`, `results.json` and `records.tar.gz` into the folder of the results."""
    described = machine(setup.device)
    steps = [
        {**asdict(outcome), "figures": [asdict(f) | {"verdict": f.verdict} for f in outcome.figures]}
        for outcome in outcomes
    ]
    data = str(setup.data.name) if setup.data else "drawn faces"
    with atomic_write(setup.out / "results.json", "w", encoding="utf-8") as file:
        json.dump({"command": command, "data": data, "machine": described, "steps": steps}, file, indent=2)
    with atomic_write(setup.out / "RESULTS.md", "w", encoding="utf-8") as file:
        file.write("\n".join(_markdown(outcomes, described, data, command)) + "\n")
    with tarfile.open(setup.out / "records.tar.gz", "w:gz") as archive:
        for path in _records(setup.out):
            archive.add(path, path.relative_to(setup.out))


def _markdown(outcomes: Sequence[Outcome], described: dict[str, str], data: str, command: str) -> list[str]:
    lines = [f"`{command}` on {data}; " + ", ".join(f"{name} {value}" for name, value in described.items()), ""]
    lines += ["| step | measured | value | goal | |", "|---|---|---|---|---|"]
    for outcome in outcomes:
        lines.append(
            f"| **{outcome.step}** | {outcome.state} after {outcome.seconds:.0f} of {outcome.limit:.0f} s | | | |"
        )
        for figure in outcome.figures:
            value = figure.value if isinstance(figure.value, str) else f"{figure.value:.6g}"
            goal = "" if figure.goal is None else f"{'at most' if figure.most else 'at least'} {figure.goal:g}"
            lines.append(f"| | {figure.name} | {value} {figure.unit} | {goal} | {figure.verdict} |")
    return lines


def _records(out: Path) -> list[Path]:
    logs = [path for pattern in ("*.log", "*.txt", "sync_*.json") for path in sorted(out.glob(pattern))]
    runs = sorted({path.parent.parent for path in out.glob("runs/**/.hydra/config.yaml")})
    return logs + [run / name for run in runs for name in RECORDS if (run / name).is_file()]
