"""Which of several processes is this one, and who started them? Answered without PyTorch, before anything else is."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

LIGHTNING_CHILD_FLAG = (
    "hydra.job.name=train_ddp_process_"  # what Lightning adds to the command of each process that it starts
)


class Launch(NamedTuple):
    """How this process was started, where a training has several.

    Attributes:
        by: `torchrun`, `SLURM` (that is srun), or `Lightning`: by the first process, which is itself started by hand.
        rank: Its number among all, from 0.
        processes: How many there are on all machines; None if only the Trainer knows (`Lightning`).
        node: The number of its machine, from 0.
        local_rank: Its number on its machine, from 0.
        per_node: How many there are on each machine; None if that is not said.
    """

    by: Literal["torchrun", "SLURM", "Lightning"]
    rank: int
    processes: int | None
    node: int
    local_rank: int
    per_node: int | None


def detect_launcher(
    environment: Mapping[str, str] | None = None, arguments: Sequence[str] | None = None
) -> Launch | None:
    """Returns how this process was started; None if it stands alone, or starts the others itself.

    Args:
        environment: Stands for `os.environ`.
        arguments: Stands for `sys.argv[1:]`.
    """
    told = os.environ if environment is None else environment
    given = sys.argv[1:] if arguments is None else arguments
    if any(argument.startswith(LIGHTNING_CHILD_FLAG) for argument in given):
        local = int(told.get("LOCAL_RANK", 0))
        return Launch("Lightning", local, None, 0, local, None)
    if "TORCHELASTIC_RUN_ID" in told:
        names = ("RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        rank, processes, node, local, per_node = (int(told[name]) for name in names)
        return Launch("torchrun", rank, processes, node, local, per_node) if processes > 1 else None
    # As Lightning decides it: a job of that name is a shell, in which everything is started by hand.
    if int(told.get("SLURM_NTASKS", 1)) > 1 and told.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        rank, node, local = (int(told.get(name, 0)) for name in ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID"))
        tasks = re.match(r"\d+", told.get("SLURM_NTASKS_PER_NODE", ""))
        return Launch("SLURM", rank, int(told["SLURM_NTASKS"]), node, local, int(tasks[0]) if tasks else None)
    return None


def script(name: Literal["train", "predict"]) -> str:
    """Returns how to start `train` or `predict` again, for a shell: by a clone's script, or the installed command."""
    in_a_clone = (Path(__file__).resolve().parents[2] / f"{name}.py").is_file()
    by_command = Path(sys.argv[0]).name in ("agegender", "agegender.exe", "__main__.py")
    return f"python {name}.py" if in_a_clone and not by_command else f"agegender {name}"
