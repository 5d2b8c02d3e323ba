"""Several processes train, evaluate and stop as one does, with the same metrics and one folder."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY, Outcome, metrics_of, run_script
from helpers.composed import RefusalOf, refusal_of
from helpers.stopped_runs import differences
from helpers.waiting import wait_for_text
from omegaconf import OmegaConf

from agegender.runs.checkpoint import load_checkpoint

Run = Callable[..., Outcome]
SMILE = "+tasks.smile={_target_: agegender.tasks.Binary, label: smile, classes: [no, yes]}"
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
# Random are the initialization and the order only, which all processes share. The last batch of training and validation
# has one face, which leaves the second process none.
SAME = (*TINY, "model.dropout=0", "data.batch_size=6", "data.limit=94", "trainer.gradient_clip_val=1")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run_two(*settings: str, cwd: Path) -> Outcome:
    """Runs train.py with a timeout that allows for processes that wait for each other on busy cores."""
    return run_script("train.py", *settings, cwd=cwd, timeout=900)


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def start(*command: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a command in a new process group, as a terminal does."""
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env={**os.environ, **(env or {})}, start_new_session=True, **piped)


def outcome_of(process: subprocess.Popen[str]) -> Outcome:
    try:
        out, err = process.communicate(timeout=900)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Outcome(process.returncode, out, err)


def assert_same_results(first: Path, second: Path) -> None:
    """Asserts that two runs agree in metrics, predictions and weights, up to the order of summation."""
    ours, theirs = metrics_of(first), metrics_of(second)
    names = [name for name in ours if name.startswith(("val/", "test/", "images/", "baseline/")) and ours[name]]
    assert len(names) > 12
    assert {name: theirs[name] for name in names} == pytest.approx({name: ours[name] for name in names}, rel=1e-4)
    assert ours["best_epoch"] == theirs["best_epoch"]
    answers, others = (rows_of(run / "predictions.csv") for run in (first, second))
    assert len(answers) == ours["images/test"]
    assert [Path(row["path"]).name for row in others] == [
        Path(row["path"]).name for row in answers
    ]  # each once, in order
    for name in (column for column in answers[0] if column == "age_pred" or column.startswith("p_")):
        wanted = [float(row[name]) for row in answers]
        assert [float(row[name]) for row in others] == pytest.approx(wanted, rel=1e-3, abs=2e-3)
    one, other = (load_checkpoint(run / "checkpoints/best.ckpt") for run in (first, second))
    for name, values in one["network"].items():
        if isinstance(values, dict):  # the calibration of a task
            for key, numbers in values.items():
                assert other["network"][name][key] == pytest.approx(numbers, rel=1e-2, abs=1e-2), (name, key)
        else:
            torch.testing.assert_close(other["network"][name], values, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_score_as_one(run_here: Run, tmp_path: Path) -> None:
    three = (*SAME, "tasks=age_gender_ethnicity")
    alone = run_here("train.py", *three, "hydra.run.dir=one")
    assert alone.code == 0, alone.err
    # No folder is given: the second process must not create another.
    both = run_two(*three, *TWO, "name=two", cwd=tmp_path)
    assert both.code == 0, both.err
    (run,) = (tmp_path / "logs/two").iterdir()
    assert metrics_of(run)["images/train"] % 6 == metrics_of(run)["images/val"] % 6 == 1
    assert_same_results(tmp_path / "one", run)
    assert both.err == "" and both.out.count("epoch 1/2: ") == both.out.count("results: ") == 1
    assert "2 processes" in metrics_of(run)["hardware"]
    assert {path.name for path in run.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ("callbacks=ema", "optim=adamw", "age=dldl", "trainer.accumulate_grad_batches=2"),
        ("data=table", "data.table=labels.csv", "loss.learned=true", SMILE),
        ("data=table", "data.table=labels.csv", "age=dldl", "teacher=default"),
    ],
    ids=["average of the weights", "missing labels", "a teacher"],
)
def test_two_processes_average_each_loss_over_all_faces(
    run_here: Run, tmp_path: Path, faces: Path, change: tuple[str, ...]
) -> None:
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "age", "gender", "smile"])
        for i, face in enumerate(sorted(faces.glob("*.jpg"))):
            age, gender = face.name.split("_")[:2]
            writer.writerow(
                [face, "" if i % 3 == 0 else age, "" if i % 4 == 0 else gender, ("yes", "no", "", "")[i % 4]]
            )
    kept = [
        setting for setting in SAME if change[0] != "data=table" or not setting.startswith(("data=", "data.synthetic"))
    ]
    alone = run_here("train.py", *kept, *change, "hydra.run.dir=one")
    assert alone.code == 0, alone.err
    both = run_two(*kept, *TWO, *change, "hydra.run.dir=two", cwd=tmp_path)
    assert both.code == 0, both.err
    assert_same_results(tmp_path / "one", tmp_path / "two")


def slurm_environment(rank: int, port: int) -> dict[str, str]:
    """Returns the environment of one of two srun tasks on one machine, without a real SLURM."""
    task = {"NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "PROCID": rank, "LOCALID": rank, "NODEID": 0}
    named = {"JOB_ID": 1234, "JOB_NAME": "faces", "NODELIST": "localhost", "STEP_ID": 0}
    return {f"SLURM_{name}": str(value) for name, value in {**task, **named}.items()} | {"MASTER_PORT": str(port)}


def by_torchrun(*settings: str, cwd: Path) -> Outcome:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}")
    return outcome_of(start(*torchrun, str(ROOT / "train.py"), *settings, cwd=cwd))


def by_srun(*settings: str, cwd: Path) -> Outcome:
    """Starts both tasks as srun does and returns their outputs one after the other."""
    command, port = (sys.executable, str(ROOT / "train.py"), *settings), free_port()
    ended = [
        outcome_of(task) for task in [start(*command, cwd=cwd, env=slurm_environment(rank, port)) for rank in range(2)]
    ]
    return Outcome(
        max(task.code for task in ended), "".join(task.out for task in ended), "".join(task.err for task in ended)
    )


@pytest.mark.slow
@pytest.mark.parametrize("launch", [by_torchrun, by_srun])
def test_torchrun_and_srun_train_one_run_in_one_folder(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch: Callable[..., Outcome]
) -> None:
    assert run_here("train.py", *SAME, "hydra.run.dir=one").code == 0
    # An empty cache: one process fills it, and the other waits.
    monkeypatch.setenv("AGEGENDER_CACHE", str(tmp_path / "cache"))
    both = launch(*SAME, "trainer=ddp", "trainer.accelerator=cpu", "name=two", cwd=tmp_path)
    assert both.code == 0, both.err
    (run,) = (tmp_path / "logs/two").iterdir()
    assert_same_results(tmp_path / "one", run)
    assert both.out.count("results: ") == both.out.count("epoch 1/2: ") == 1
    assert (
        both.out.count("drawing 120 cartoon faces") <= 1
    )  # the process that draws may be rank 1, which prints nothing
    assert not (tmp_path / ".hydra").exists() and (run / ".hydra/overrides.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("launch", [by_torchrun, by_srun])
def test_launchers_refuse_a_world_size_that_differs_from_the_settings(
    tmp_path: Path, launch: Callable[..., Outcome]
) -> None:
    outcome = launch(*SAME, cwd=tmp_path)
    assert outcome.code == 1
    line = next(line for line in outcome.err.splitlines() if line.startswith("error: "))
    assert "started 2 processes, but the settings say trainer.devices=1 on trainer.num_nodes=1" in line
    assert "set trainer=ddp trainer.devices=2 trainer.num_nodes=1" in line
    assert not (tmp_path / "logs").exists() or not any((tmp_path / "logs").glob("*/*"))


def children_of(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def long_training(
    tmp_path: Path, *settings: str, by: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[Any], list[int], Path]:
    """Starts a training of two processes and returns after its first epoch: the process, its children and its log."""
    log = tmp_path / "log"
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, *by, str(ROOT / "train.py"), *SAME, *TWO, "hydra.run.dir=run", *settings]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    wait_for_text("epoch 1/", log, process)
    started = [pid for pid in children_of(process.pid) if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return process, started, log


RANDOM = (
    "augment=light",
    "augment.mixup=0.2",
    "model.dropout=0.3",
    "trainer.max_epochs=400",
    "callbacks.early_stopping=null",
)


def assert_gone(pids: list[int], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert pids and not any(map(alive, pids))


@pytest.mark.slow
def test_ctrl_c_that_torchrun_forwards_counts_once(tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}")
    process, both, log = long_training(tmp_path, *RANDOM, by=torchrun)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does; torchrun forwards it
    assert process.wait(300) != 0
    assert log.read_text().count("interrupted in epoch ") == 1
    assert len(both) == 2
    assert_gone(both)


@pytest.mark.slow
def test_stop_of_only_one_process_stops_all(tmp_path: Path) -> None:
    process, started, log = long_training(tmp_path, *RANDOM)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(300) == 130, log.read_text()
    assert log.read_text().count("interrupted in epoch ") == 1
    assert_gone(started)


@pytest.mark.slow
def test_run_of_one_process_resumes_with_two(run_here: Run, tmp_path: Path) -> None:
    assert run_here("train.py", *SAME, "hydra.run.dir=run", "trainer.max_epochs=1").code == 0
    assert run_here("train.py", *SAME, "hydra.run.dir=one").code == 0
    again = run_two("resume=run", *TWO, "trainer.max_epochs=2", cwd=tmp_path)
    assert again.code == 0, again.err
    assert_same_results(tmp_path / "one", tmp_path / "run")


@pytest.mark.slow
def test_batch_norm_on_two_cpu_processes_trains_with_a_note(tmp_path: Path) -> None:
    small = ("model=residual", "model.trunk.stem=8", "model.trunk.channels=[8,16]", "model.trunk.blocks=[1,1]")
    kept = [setting for setting in SAME if not setting.startswith("model.")]
    both = run_two(*kept, *TWO, *small, "data.limit=96", "hydra.run.dir=run", cwd=tmp_path)
    assert both.code == 0, both.err
    assert both.out.count("each process's batch norms count its own faces only") == 1
    assert metrics_of(tmp_path / "run")["epochs"] == 2


def test_sharded_run_is_not_resumed_without_sharding(run_here: Run, trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "run")
    settings = tmp_path / "run/.hydra/config.yaml"
    saved = OmegaConf.load(settings)
    saved.trainer.strategy = {"_target_": "agegender.distributed.fsdp.FSDP", "min_num_params": 1000}
    OmegaConf.save(saved, settings)
    unlike = run_here("train.py", "resume=run", "trainer.max_epochs=3")
    assert unlike.code == 1 and "trainer.strategy was agegender.distributed.fsdp.FSDP" in unlike.err


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    process, started, log = long_training(tmp_path, *RANDOM)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(300) == 130, log.read_text()
    output = log.read_text()
    assert output.count("interrupted in epoch ") == 1 and "Traceback" not in output
    assert_gone(started)
    stopped = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    last = 3 + stopped // 12
    end = f"trainer.max_epochs={last}"
    whole = run_two(*SAME, *TWO, *RANDOM, end, "hydra.run.dir=whole", cwd=tmp_path)
    again = run_two("resume=run", end, cwd=tmp_path)
    assert whole.code == again.code == 0, whole.err + again.err
    ends = [torch.load(tmp_path / run / "checkpoints/last.ckpt", weights_only=True) for run in ("run", "whole")]
    assert ends[0]["global_step"] == ends[1]["global_step"] > stopped
    assert differences(ends[0]["state_dict"], ends[1]["state_dict"]) == []
    assert metrics_of(tmp_path / "run")["val/age_mae"] == metrics_of(tmp_path / "whole")["val/age_mae"]


@pytest.mark.slow
def test_killed_process_ends_the_others_and_the_run_resumes(tmp_path: Path) -> None:
    process, (second,), log = long_training(tmp_path, *RANDOM)
    os.kill(second, signal.SIGKILL)
    assert process.wait(300) != 0, log.read_text()
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["epoch"] + 1
    again = run_two("resume=run", f"trainer.max_epochs={saved + 1}", cwd=tmp_path)
    assert again.code == 0, again.err
    assert metrics_of(tmp_path / "run")["epochs"] == saved + 1


@pytest.mark.slow
def test_killed_rank_0_leaves_no_process_behind(tmp_path: Path) -> None:
    process, started, _ = long_training(tmp_path, *RANDOM)
    process.kill()
    process.wait(60)
    assert_gone(started)


def test_multirun_on_several_devices_is_refused_with_a_remedy(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", "-m", *TINY, *TWO, "optim.lr=1e-3,1e-4")
    assert outcome.code == 1
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert "job 0: trainer.devices=2 on trainer.num_nodes=1 in a multirun (-m): " in line
    assert "Sweep with trainer.devices=1" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("data.batch_size=15",), "data.batch_size=15 is split over 2 devices at every step: set a multiple of 2"),
        (("trainer.num_nodes=2",), "this process was started alone: start one on each machine"),
        (
            ("trainer.strategy=ddp_spawn",),
            "trainer.strategy=ddp_spawn is not supported",
        ),
        (("trainer.strategy=fsdp",), "use trainer=ddp or trainer=fsdp"),
        (("+trainer.overfit_batches=2",), "trainer.overfit_batches is for one device"),
        (("trainer=fsdp", "trainer.gradient_clip_val=1"), "clip gradients that trainer=fsdp shards"),
        (("trainer=fsdp", "callbacks=ema"), "callbacks=ema needs all weights in each process"),
        (("trainer=fsdp", "trainer.gradient_clip_val=null"), "trainer=fsdp requires NVIDIA GPUs"),
    ],
)
def test_several_devices_refuse_unsupported_settings_before_the_start(
    refusal_of: RefusalOf, tmp_path: Path, settings: tuple[str, ...], message: str
) -> None:
    assert message in refusal_of(*TINY, *TWO, *settings)
    assert not list(tmp_path.glob("logs/*/*"))
