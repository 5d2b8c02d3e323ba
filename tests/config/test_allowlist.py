"""The allow-list: a config or checkpoint builds trusted classes only, however it names a target."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from agegender.config.allowlist import check_allowed, check_instantiable, instantiate
from agegender.config.hydra_targets import check_hydra
from agegender.config.hydra_versions import version_base
from agegender.errors import AgeGenderError
from agegender.training.module import AgeGenderModule

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def harm(tmp_path: Path) -> Path:
    """The folder that the payloads would create."""
    return tmp_path / "harm"


@pytest.mark.parametrize(
    "target",
    [
        "agegender.system.files.os.mkdir",
        "lightning.pytorch.trainer.trainer.os.mkdir",
        "torch.optim.lr_scheduler.types.FunctionType",
        "lightning.pytorch.LightningModule.load_from_checkpoint",
        "lightning.pytorch.cli.instantiate_class",
        "lightning.pytorch.cli.LightningCLI",
        "agegender.training.module.AgeGenderModule.load_from_checkpoint",
        "agegender.prediction.images.sources.download",
        "agegender.training",
    ],
)
def test_allowlist_refuses_modules_reached_through_a_library_and_loaders(target: str, harm: Path) -> None:
    with pytest.raises(AgeGenderError, match=target.replace(".", r"\.") + " is refused"):
        instantiate({"_target_": target, "path": str(harm)}, "callbacks")
    assert not harm.exists()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_allowlist_finds_a_payload_in_nested_lists(depth: int, harm: Path) -> None:
    node: Any = {"_target_": "os.mkdir", "path": str(harm)}
    for _ in range(depth):
        node = [node]
    with pytest.raises(AgeGenderError, match=r"os\.mkdir is refused"):
        instantiate({"_target_": "lightning.pytorch.Trainer", "logger": node}, "trainer")
    assert not harm.exists()


def test_allowlist_refuses_text_that_resolves_to_a_payload(harm: Path) -> None:
    text = "${oc.create:{_target_: os.mkdir, path: " + str(harm) + "}}"
    node = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": text}
    for refuse in (check_instantiable, lambda node: instantiate(node, "callbacks")):
        with pytest.raises(AgeGenderError, match=r"ModelCheckpoint: .* can't be used: `\$\{` begins an interpolation"):
            refuse(node)
    assert not harm.exists()


@pytest.mark.parametrize(
    ("target", "place", "arguments"),
    [
        ("lightning.pytorch.loggers.CSVLogger", "logger", {"save_dir": "logs"}),
        ("agegender.training.callbacks.progress_bar.progress_bar", "callbacks", {}),  # a function
        ("agegender.models.trunks.conv_stack.ConvStack", "model.trunk", {"in_channels": 1, "image_size": 64}),
    ],
)
def test_instantiate_builds_classes_of_the_libraries(target: str, place: str, arguments: dict[str, Any]) -> None:
    assert instantiate({"_target_": target, **arguments}, place) is not None


def test_check_allowed_accepts_classes_of_the_libraries() -> None:
    names = ["lightning.pytorch.plugins.environments.LightningEnvironment", "torchmetrics.MeanMetric"]  # fabric's
    check_allowed([{"_target_": name} for name in [*names, "torchvision.transforms.v2.RandomErasing"]])


def test_allowlist_covers_the_hyperparameters_of_a_checkpoint(trained_run: Path, tmp_path: Path, harm: Path) -> None:
    checkpoint = torch.load(trained_run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["optim"]["optimizer"] = {
        "_target_": "agegender.system.files.os.mkdir",
        "path": str(harm),
    }
    torch.save(checkpoint, tmp_path / "trap.ckpt")
    module = AgeGenderModule.load_from_checkpoint(tmp_path / "trap.ckpt", weights_only=True, map_location="cpu")
    with pytest.raises(AgeGenderError, match=r"os\.mkdir is refused"):
        module.configure_optimizers()
    assert not harm.exists()


# What Hydra itself builds, before any code of ours runs


EVIL = {
    "callback": "callbacks: {x: {_target_: os.mkdir, path: HARM}}",
    "by a library": "callbacks: {x: {_target_: agegender.system.files.os.mkdir, path: HARM}}",
    "by reference": "callbacks: {x: '${evil}'}",
    "launcher": "launcher: {_target_: os.mkdir}",
    "sweeper": "sweeper: {_target_: os.mkdir}",
    "log handler": "job_logging: {handlers: {x: {(): os.mkdir, path: HARM}}}",
    "log handler's class": "job_logging: {handlers: {x: {class: logging.os.mkdir, path: HARM}}}",
    "log stream": "hydra_logging: {handlers: {console: {stream: 'ext://os.environ'}}}",
    "log file": "job_logging: {handlers: {x: {class: logging.FileHandler, filename: HARM}}}",
    "log file above the run": (
        "job_logging: {handlers: {x: {class: logging.FileHandler, filename: '${hydra.runtime.output_dir}/../HARM'}}}"
    ),
    "log file by the job's name": "job: {name: ../../x}",
    "log handler that sends records": "job_logging: {handlers: {x: {class: logging.handlers.SocketHandler, host: a}}}",
    "log handler that resolves later": "job_logging: {handlers: {x: '${evil.${hydra:runtime.cwd}}'}}",
    "log class that resolves later": "job_logging: {handlers: {x: {(): '${hydra:job.name}'}}}",
    "environment": "job: {env_set: {PYTHONWARNINGS: 'ignore::antigravity.x', BROWSER: 'touch HARM'}}",
    "environment by reference": "job: {env_set: '${variables}'}",
    "second environment": "env: {LD_PRELOAD: HARM}",
}


def evil_config(kind: str, harm: Path) -> str:
    evil = "evil: {_target_: os.mkdir, path: HARM}\nvariables: {BROWSER: x}\n"
    return f"{evil}hydra:\n  {EVIL[kind]}\n".replace("HARM", str(harm))


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """The config of train.py, with Hydra's part. Read only."""
    with initialize_config_dir(str(CONF), **version_base()):
        return compose("train", return_hydra_config=True)


@pytest.mark.parametrize("kind", EVIL)
def test_check_hydra_covers_what_hydra_itself_builds(composed: DictConfig, kind: str, harm: Path) -> None:
    with open_dict(config := copy.deepcopy(composed)):
        config.merge_with(OmegaConf.create(evil_config(kind, harm)))
    with pytest.raises(AgeGenderError, match=r"^hydra\..*( is refused|job\.name=\.\./\.\./x must be a file name)"):
        check_hydra(config)
    assert not harm.exists()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param(kind, more, marks=() if (kind, more) == ("callback", ()) else pytest.mark.slow)
        for kind in EVIL
        for more in ((), ("-m",))
    ],
)
def test_allowlist_covers_what_hydra_itself_builds(
    kind: str, more: tuple[str, ...], run_here: Callable[..., Outcome], tmp_path: Path, harm: Path
) -> None:
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    text = f"# @package _global_\n{evil_config(kind, harm)}"
    (tmp_path / "theirs" / "experiment" / "evil.yaml").write_text(text)
    outcome = run_here("train.py", *more, "--config-dir", str(tmp_path / "theirs"), *TINY, "experiment=evil")
    outcome.assert_one_line_error("hydra.")
    assert " is refused" in outcome.err or "hydra.job.name=../../x must be a file name" in outcome.err
    assert not harm.exists() and not (tmp_path / "logs").exists()


def test_allowlist_covers_predict(run_here: Callable[..., Outcome], harm: Path) -> None:
    payload = ("+hydra.callbacks.x._target_=os.mkdir", f"+hydra.callbacks.x.path={harm}")
    outcome = run_here("predict.py", "img=face.jpg", *payload)
    outcome.assert_one_line_error("error: hydra.callbacks.x._target_: os.mkdir is refused")
    assert not harm.exists()


def test_allowlist_accepts_threads_and_log_files_in_the_run_folder() -> None:
    job = {"name": "train", "env_set": {"OMP_NUM_THREADS": "1"}}
    file = {"class": "logging.FileHandler", "filename": "${hydra.runtime.output_dir}/${hydra.job.name}.log"}
    check_hydra(OmegaConf.create({"hydra": {"job": job, "job_logging": {"version": 1, "handlers": {"file": file}}}}))


@pytest.mark.parametrize("name", ["train", "predict", "explore", "report"])
def test_allowlist_accepts_the_shipped_configs(name: str) -> None:
    with initialize_config_dir(str(CONF), **version_base()):
        config = compose(name, return_hydra_config=True)
    assert OmegaConf.select(config, "hydra.sweeper._target_")
    check_hydra(config)
