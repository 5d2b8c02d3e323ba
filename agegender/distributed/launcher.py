"""Detect the distributed launcher and this process's rank, without importing torch."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

# The override that Lightning adds to the command line of every process that it starts.
LIGHTNING_CHILD_FLAG = "hydra.job.name=train_ddp_process_"


class Launch(NamedTuple):
    """The launcher of a distributed training, and the place of this process in it.

    Attributes:
        launcher: `torchrun`, `SLURM` (srun), or `Lightning`: the process of rank 0, started by hand, launched this one.
        rank: Global rank, from 0.
        world_size: Number of processes on all machines; None for `Lightning`, where only the Trainer has it.
        node_rank: Number of this machine, from 0.
        local_rank: Rank on this machine, from 0.
        local_world_size: Number of processes on each machine; None if unknown.
    """

    launcher: Literal["torchrun", "SLURM", "Lightning"]
    rank: int
    world_size: int | None
    node_rank: int
    local_rank: int
    local_world_size: int | None


def detect_launcher(
    environment: Mapping[str, str] | None = None, arguments: Sequence[str] | None = None
) -> Launch | None:
    """Return how this process was launched; None for a single process, or for one that launches the others itself.

    Args:
        environment: Environment variables; `os.environ` by default.
        arguments: Command-line arguments; `sys.argv[1:]` by default.
    """
    env = os.environ if environment is None else environment
    argv = sys.argv[1:] if arguments is None else arguments
    if any(argument.startswith(LIGHTNING_CHILD_FLAG) for argument in argv):
        local_rank = int(env.get("LOCAL_RANK", 0))
        return Launch("Lightning", local_rank, None, 0, local_rank, None)
    if "TORCHELASTIC_RUN_ID" in env:
        names = ("RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        rank, world_size, node_rank, local_rank, local_world_size = (int(env[name]) for name in names)
        return Launch("torchrun", rank, world_size, node_rank, local_rank, local_world_size) if world_size > 1 else None
    # The rule of Lightning: a job named `bash` or `interactive` is a shell, in which processes are started by hand.
    if int(env.get("SLURM_NTASKS", 1)) > 1 and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        ids = ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID")
        rank, node_rank, local_rank = (int(env.get(name, 0)) for name in ids)
        tasks = re.match(r"\d+", env.get("SLURM_NTASKS_PER_NODE", ""))
        tasks_per_node = int(tasks[0]) if tasks else None
        return Launch("SLURM", rank, int(env["SLURM_NTASKS"]), node_rank, local_rank, tasks_per_node)
    return None


def script(name: str) -> str:
    """Return the shell command of a subcommand: for `train` and `predict` in a clone, the script."""
    in_clone = (Path(__file__).resolve().parents[2] / f"{name}.py").is_file()
    is_installed_command = Path(sys.argv[0]).name in ("agegender", "agegender.exe", "__main__.py")
    return f"python {name}.py" if in_clone and not is_installed_command else f"agegender {name}"
