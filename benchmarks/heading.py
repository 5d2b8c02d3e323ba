"""The heading of a benchmark's table: the command, the weights and the machine."""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path

import torch

from agegender.runs.checkpoint import BUNDLED_WEIGHTS
from agegender.system.progress import available_cores
from agegender.training.results import cpu_name


def named_weights(given: str, file: Path) -> str:
    """Return the weights as given, their file name, and the first 12 digits of its SHA-256.

    `default` refers to different weights in different versions; the checksum identifies them.
    """
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return f"{f'{given}, ' if str(given) in BUNDLED_WEIGHTS else ''}{file.name} (SHA-256 {checksum})"


def heading(module: str, *weights: str) -> str:
    """Return the heading of a table, of several lines.

    Args:
        module: Module of the benchmark, such as `portraits`.
        weights: Descriptions from `named_weights`.
    """
    cores = available_cores()
    return "\n".join(
        [
            f"$ {shlex.join(['python', '-m', f'benchmarks.{module}', *sys.argv[1:]])}",
            *(f"weights: {name}" for name in weights),
            f"machine: {cpu_name()}, {cores} core{'s' * (cores > 1)}, PyTorch {torch.__version__}",
        ]
    )
