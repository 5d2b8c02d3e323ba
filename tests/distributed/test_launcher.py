"""Detection of the distributed launcher and of the rank."""

from __future__ import annotations

import pytest

from agegender.config.overrides import overrides_for_rank
from agegender.distributed.launcher import Launch, detect_launcher

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "GROUP_RANK": "1",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
}
SRUN = {
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4(x2)",
    "SLURM_PROCID": "5",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NAME": "faces",
}


@pytest.mark.parametrize(
    ("environment", "arguments", "wanted"),
    [
        (TORCHRUN, [], Launch("torchrun", 5, 8, 1, 1, 4)),
        (SRUN, [], Launch("SLURM", 5, 8, 1, 1, 4)),
        ({"LOCAL_RANK": "1"}, ["hydra.job.name=train_ddp_process_1"], Launch("Lightning", 1, None, 0, 1, None)),
        ({}, ["trainer=ddp"], None),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, ["trainer=ddp"], None),  # Lightning's first process, later on
        ({**TORCHRUN, "WORLD_SIZE": "1"}, [], None),
        ({**SRUN, "SLURM_NTASKS": "1"}, [], None),
        ({**SRUN, "SLURM_JOB_NAME": "bash"}, [], None),  # a shell on a cluster's machine
    ],
)
def test_detect_launcher_reads_rank_and_world_size_from_the_environment(
    environment: dict[str, str], arguments: list[str], wanted: Launch | None
) -> None:
    assert detect_launcher(environment, arguments) == wanted


def test_overrides_for_rank_create_a_run_folder_on_rank_0_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["trainer=ddp", "hydra.run.dir=runs/mine"]
    assert overrides_for_rank(given) == given
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert overrides_for_rank(given) == ["trainer=ddp", "hydra.run.dir=.", "hydra.output_subdir=null"]
    monkeypatch.setenv("RANK", "0")
    assert overrides_for_rank(given) == given
