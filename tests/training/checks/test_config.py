"""Every shipped option composes and builds; invalid settings are refused before data is read."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from conftest import ROOT, TINY, Outcome
from helpers.composed import RefusalOf, compose_train, refusal_of
from helpers.nodes import AGES, target, task_nodes
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from agegender.config.allowlist import instantiate, kwargs_of
from agegender.config.trust import BUILT_IN
from agegender.data.augmentation.build import build_augmentation
from agegender.data.augmentation.mixing import split_settings
from agegender.data.datamodule import AgeGenderDataModule
from agegender.errors import AgeGenderError
from agegender.tasks.monitor import with_monitor
from agegender.training.builders import build_data, network_kwargs
from agegender.training.checks.config import check_config
from agegender.training.module import AgeGenderModule
from agegender.training.optim import WarmupCosine, build_optimizer, build_scheduler

OPTIONS = sorted(
    f"{file.parent.relative_to(ROOT / 'conf')}={file.stem}" for file in (ROOT / "conf").glob("*/**/*.yaml")
)


@pytest.fixture
def settings_of(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Composes conf/train.yaml as `train.py` would, with its outputs in `tmp_path`."""

    def settings(*overrides: str) -> dict[str, Any]:
        plain: Any = OmegaConf.to_container(compose_train(*overrides, folder=tmp_path), resolve=True)
        return dict(plain)

    yield settings
    HydraConfig.instance().cfg = None


def test_config_groups_have_the_documented_options() -> None:
    expected = (
        "tasks=age_gender tasks=age_gender_ethnicity "
        "age=mae age=mse age=huber age=classes age=dldl age=coral augment=light augment=medium augment=none "
        "augment=strong augment=robust callbacks=default callbacks=ema callbacks=swa "
        "data=synthetic data=table data=utkface data=streaming "
        "experiment=quickstart experiment=gray_mae experiment=age_classes "
        "experiment=wide_heads experiment=rgb200_mse experiment=he_mse "
        "logger=csv logger=tensorboard logger=wandb logger=mlflow "
        "experiment=small experiment=pretrained experiment=coral_protocol "
        "model=conv_stack model=residual model=torchvision model=timm model=face optim=adam optim=adamw "
        "sweep=grid sweep=optuna "
        "protocol=clean protocol=coral protocol=random protocol=folds protocol=fivefold_benchmark "
        "trainer=auto trainer=cpu trainer=debug trainer=gpu trainer=mixed trainer=ddp trainer=fsdp"
    )
    assert set(expected.split()) <= set(OPTIONS)


@pytest.mark.parametrize(
    "option",
    [pytest.param(each, marks=pytest.mark.slow if each == "logger=mlflow" else ()) for each in OPTIONS],  # its import
)
def test_shipped_options_compose_validate_and_build(option: str, settings_of: Callable[..., dict[str, Any]]) -> None:
    packages = {"model=timm": "timm", "logger=wandb": "wandb", "logger=mlflow": "mlflow"}
    if option in packages:
        pytest.importorskip(packages[option])
    settings = settings_of(option)
    check_config(settings)
    settings = with_monitor(settings)
    if option == "data=streaming":
        settings["data"]["dir"] = "shards"  # no default
    data = build_data(settings)
    network, _ = network_kwargs(settings, data.image_size, data.channels)
    settings["loss"].pop("teacher")  # belongs to the soft targets
    module = AgeGenderModule(network, settings["optim"], settings["loss"])
    pixels = torch.randint(0, 256, (2, data.channels, data.image_size, data.image_size), dtype=torch.uint8)
    images = build_augmentation(split_settings(settings["augment"])[0])(pixels, torch.Generator().manual_seed(0))
    columns = module.eval()(images)
    assert columns["age"].shape == columns["p_female"].shape == (2,)

    built = [instantiate(node, "callbacks") for node in settings["callbacks"].values() if node is not None]
    loggers = [instantiate(node, "logger") for node in settings["logger"].values()]
    assert all(isinstance(callback, Callback) for callback in built)
    assert all(isinstance(logger, Logger) for logger in loggers)
    if settings["trainer"]["accelerator"] == "gpu" and not torch.cuda.is_available():
        settings["trainer"]["accelerator"] = "cpu"  # the refusal without a GPU has its own test
    trainer = instantiate(settings["trainer"], "trainer", callbacks=built, logger=loggers)
    assert isinstance(trainer, pl.Trainer) and trainer.num_devices == 1
    optimizer = build_optimizer(settings["optim"]["optimizer"], [{"params": list(module.network.parameters())}])
    assert isinstance(optimizer, torch.optim.Optimizer)
    if scheduler := settings["optim"]["scheduler"]:
        built_scheduler = build_scheduler(scheduler, optimizer, steps=100, epochs=5)
        assert built_scheduler["interval"] == "step" and 0 < optimizer.param_groups[0]["lr"] < settings["optim"]["lr"]


def test_library_objects_receive_plain_containers(settings_of: Callable[..., dict[str, Any]]) -> None:
    settings = settings_of("+optim.optimizer.betas=[0.8,0.9]")
    check_config(settings)
    optimizer = build_optimizer(settings["optim"]["optimizer"], [{"params": [torch.nn.Parameter(torch.zeros(1))]}])
    betas = optimizer.param_groups[0]["betas"]
    assert list(betas) == [0.8, 0.9] and type(betas) in (list, tuple)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ("data.image_size=big", "data.image_size='big'"),
        ("data.image_size=64.5", "data.image_size=64.5"),
        ("data.image_size=[64]", "data.image_size=[64]"),
        ("data.grayscale=1", "data.grayscale=1"),
        ("data.grayscale=gray", "data.grayscale='gray'"),
        ("data.age_range=[0,old]", "data.age_range=[0, 'old']"),
        ("data.duplicates=nearly", "data.duplicates='nearly'"),
        ("data.split=randomly", "data.split='randomly'"),
        ("data.synthetic.count=2.5", "data.synthetic.count=2.5"),
        ("model.trunk.channels=32", "model.trunk.channels=32"),
        ("model.trunk.channels=[32,big]", "model.trunk.channels=[32, 'big']"),
        ("model.trunk.channels=[32.5]", "model.trunk.channels=[32.5]"),
        ("model.dropout=much", "model.dropout='much'"),
        ("model.trunk.batch_norm=0", "model.trunk.batch_norm=0"),
        ("model.trunk.kernel_size=3.0", "model.trunk.kernel_size=3.0"),
        ("model.trunk.padding=sane", "model.trunk.padding='sane'"),
        ("tasks.gender.output=softmax", "tasks.gender.output='softmax'"),
        ("model.feature_dropout=much", "model.feature_dropout='much'"),
        ("model.weight_init=xavier", "model.weight_init='xavier'"),
        ("tasks.age.scale=wide", "tasks.age.scale='wide'"),
        ("tasks.age.output=gelu", "tasks.age.output='gelu'"),
        ("report=1", "report=1"),
        ("augment.flip=often", "augment.flip='often'"),
        ("augment.scale=1.1", "augment.scale=1.1"),
        ("optim.scheduler.warmup_fraction=long", "optim.scheduler.warmup_fraction='long'"),
        ("optim.lr=fast", "optim.optimizer.lr='fast'"),
        ("seed=1.5", "seed=1.5"),
        ("seed=zero", "seed='zero'"),
        ("fit=1", "fit=1"),
        ("test=maybe", "test='maybe'"),
        ("monitor=3", "monitor=3"),
        ("tasks.age.weight=heavy", "tasks.age.weight='heavy'"),
        ("+tasks.age.digits=1.5", "tasks.age.digits=1.5"),
        ("tasks.age.limits=[0,old]", "tasks.age.limits=[0, 'old']"),
        ("tasks.gender.classes=male", "tasks.gender.classes='male'"),
        ("tasks.gender.label=3", "tasks.gender.label=3"),
        ("loss.learned=yes please", "loss.learned='yes please'"),
        ("trainer.max_epochs=ten", "trainer.max_epochs='ten'"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5"),
        ("trainer.deterministic=3", "trainer.deterministic=3"),
        ("callbacks.early_stopping.patience=1.5", "callbacks.early_stopping.patience=1.5"),
        ("callbacks.image_logger.faces=some", "callbacks.image_logger.faces='some'"),
        ("logger.tensorboard.default_hp_metric=0", "logger.tensorboard.default_hp_metric=0"),
    ],
)
def test_check_config_refuses_a_wrong_type_by_name(
    wrong: str, place: str, settings_of: Callable[..., dict[str, Any]]
) -> None:
    settings = settings_of("data=synthetic", "augment=light", "optim=adamw", wrong)
    with pytest.raises(AgeGenderError) as refused:
        check_config(settings)
    assert str(refused.value).startswith(place) and "wrong type" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("model.trunk.stem=wide", "model.trunk.stem='wide' has the wrong type"),
        ("model.trunk.blocks=2", "model.trunk.blocks=2 has the wrong type"),
        ("model.trunk.blocks=[1,1.5,1]", "model.trunk.blocks=[1, 1.5, 1] has the wrong type"),
        ("+model.block=[1]", "model.block is not known; did you mean model.trunk.blocks?"),
        ("+model.trunk.padding=same", "model.trunk.padding is not known; choose from "),
        ("augment.blur_sigma=0.01", "augment.blur_sigma=0.01 has the wrong type"),
        ("augment.compress_quality=[30.5,90]", "augment.compress_quality=[30.5, 90] has the wrong type"),
        ("+augment.colour=0.1", "augment.colour is not known; did you mean color?"),
        ("augment.mixup=-1", "augment.mixup=-1 must be at least 0"),
        ("augment.cutmix=often", "augment.cutmix='often' has the wrong type"),
    ],
)
def test_check_config_refuses_settings_of_another_trunk_or_augmentation(
    wrong: str, message: str, settings_of: Callable[..., dict[str, Any]]
) -> None:
    settings = settings_of("model=residual", "augment=strong", wrong)
    with pytest.raises(AgeGenderError) as refused:
        check_config(settings)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_check_config_refuses_mixing_with_cached_features(
    method: str, settings_of: Callable[..., dict[str, Any]]
) -> None:
    frozen = ("model=residual", "+model.trainable=none", f"augment.{method}=0.5")
    with pytest.raises(AgeGenderError, match=r"model\.trainable=none trains on cached features: set both to 0"):
        check_config(settings_of(*frozen))
    check_config(settings_of(*frozen, "data.cache=none"))


def test_train_refuses_a_wrong_type_before_data_is_read(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run_here("train.py", "data=synthetic", "data.cache_dir=cache", "data.image_size=big")
    outcome.assert_one_line_error("error: data.image_size=")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        "model.mean=[0.1,0.2]",
        "data.batch_size=0",
        "data.image_size=4",
        "data.val_fraction=1",
        "data.synthetic.count=0",
        "optim.lr=-1",
        "trainer.devices=0",
        "trainer.precision=7",
        "+trainer.overfit_batches=-1.5",
    ],
)
def test_train_refuses_an_invalid_value_in_one_line(refusal_of: RefusalOf, wrong: str) -> None:
    assert refusal_of(*TINY, "augment=light", wrong)


def payload(path: Path) -> dict[str, Any]:
    return {"_target_": "os.mkdir", "path": str(path)}


@pytest.mark.parametrize(
    "place",
    [
        ("trainer",),
        ("trainer", "profiler"),
        ("trainer", "plugins", "0"),
        ("callbacks", "extra"),
        ("callbacks", "checkpoint", "dirpath"),
        ("logger", "tensorboard"),
        ("optim", "optimizer"),
        ("optim", "optimizer", "betas"),
        ("data", "synthetic"),
        ("model", "mean"),
    ],
    ids=".".join,
)
def test_check_config_refuses_a_target_outside_the_allowlist(
    place: tuple[str, ...], settings_of: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    settings = settings_of()
    node: Any = settings
    for key in place[:-1]:
        node = node.setdefault(key, [None])
    node[int(place[-1]) if place[-1] == "0" else place[-1]] = payload(tmp_path / "harm")
    with pytest.raises(AgeGenderError, match=r"os\.mkdir is refused"):
        check_config(settings)
    with pytest.raises(AgeGenderError, match=r"os\.mkdir is refused"):
        instantiate({"_target_": "torch.optim.Adam", "x": settings}, "optim.optimizer")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("target", ["agegenderx.Evil", "torch.optimx.Adam", "torch.load", "lightning.pytorchx.A", "os"])
def test_instantiate_refuses_a_target_that_shares_a_prefix_only(target: str) -> None:
    with pytest.raises(AgeGenderError, match="is refused"):
        instantiate({"_target_": target}, "callbacks")
    assert all(name.endswith(".") for name in BUILT_IN)


def test_train_refuses_a_foreign_target_and_builds_nothing(run_here: Callable[..., Outcome], tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    outcome = run_here("train.py", *TINY, "+callbacks.x._target_=os.mkdir", f"+callbacks.x.path={harm}")
    outcome.assert_one_line_error("error: callbacks.x._target_: os.mkdir is refused")
    assert not harm.exists()


def test_check_config_refuses_a_target_that_does_not_exist(settings_of: Callable[..., dict[str, Any]]) -> None:
    settings = settings_of("optim.optimizer._target_=torch.optim.Adma")
    with pytest.raises(AgeGenderError, match=r"optim\.optimizer\._target_=torch\.optim\.Adma can't be imported") as no:
        check_config(settings)
    assert "\n" not in str(no.value)


def test_default_config_is_the_grayscale_128_pixel_run_on_utkface(
    settings_of: Callable[..., dict[str, Any]],
) -> None:
    settings = settings_of()
    assert (settings["data"]["dir"], settings["data"]["image_size"], settings["data"]["grayscale"]) == (
        "data/UTKFace",
        128,
        True,
    )
    assert settings["model"]["trunk"]["channels"] == [32, 64, 128, 256] and settings["model"]["head_units"] == [256]
    assert settings["tasks"] == task_nodes("mae", output="linear") and split_settings(settings["augment"])[0] == {}


@pytest.mark.parametrize("optim", ["adam", "adamw"])
@pytest.mark.parametrize("trainer", ["auto", "mixed"])
def test_check_config_accepts_combined_options(
    optim: str, trainer: str, settings_of: Callable[..., dict[str, Any]]
) -> None:
    check_config(settings_of(f"optim={optim}", f"trainer={trainer}", "experiment=quickstart", "age=mse"))


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ("age=classes tasks.age.bin_width=2.5", "tasks.age.bin_width=2.5"),
        ("age=classes tasks.age.max_age=high", "tasks.age.max_age='high'"),
        ("age=dldl tasks.age.sigma=wide", "tasks.age.sigma='wide'"),
        ("age=dldl tasks.age.expectation=yes", "tasks.age.expectation='yes'"),
        ("age=coral tasks.age.max_age=99.5", "tasks.age.max_age=99.5"),
        ("age=huber tasks.age.delta=big", "tasks.age.delta='big'"),
        ("age=coral +tasks.age.output=relu", "tasks.age.output is not known"),
    ],
)
def test_check_config_refuses_settings_of_another_age_task(
    wrong: str, place: str, settings_of: Callable[..., dict[str, Any]]
) -> None:
    settings = settings_of(*wrong.split())
    with pytest.raises(AgeGenderError) as refused:
        check_config(settings)
    assert str(refused.value).startswith(place) and "\n" not in str(refused.value)


def test_check_config_accepts_age_class_acc_with_classes_only(
    settings_of: Callable[..., dict[str, Any]],
) -> None:
    chosen = "monitor=val/age_class_acc"
    check_config(settings_of("age=classes", chosen))
    with pytest.raises(AgeGenderError, match="monitor=val/age_class_acc is not known"):
        check_config(settings_of("age=mae", chosen))


# Channels, image size, batch size, epochs and age task as published, and the number of weights, counted by hand.
PUBLISHED = {
    "gray_mae": (1, 128, 32, 30, "mae", 5_107_458),
    "age_classes": (3, 128, 32, 12, "classes", 5_113_174),
    "wide_heads": (1, 128, 32, 12, "mae", 5_239_042),
    "rgb200_mse": (3, 200, 32, 12, "mse", 34_828_226),
    "he_mse": (3, 128, 128, 1, "mse", 17_148_802),
}


# Further published settings; all others are the defaults.
KNOWN_BY: dict[str, dict[str, Any]] = {
    "gray_mae": {
        "model.feature_dropout": 0.5,
        "optim.scheduler": {
            "_target_": target(WarmupCosine),
            "interval": "step",
            "warmup_fraction": 0.02,
            "final_lr_ratio": 0.01,
        },
    },
    "age_classes": {"tasks.age.bin_width": 5},
    "wide_heads": {"model.head_units": [256, 256]},
    "rgb200_mse": {
        "tasks.age.scale": 1.0,
        "model.trunk.channels": [32, 64, 128],
        "model.shared_units": [512, 128],
        "model.head_units": [],
        "model.dropout": 0.0,
        "tasks.gender.output": "sigmoid",
    },
    "he_mse": {
        "tasks.age.scale": 1.0,
        "tasks.age.output": "relu",
        "model.trunk.channels": [64, 128, 256],
        "model.trunk.padding": "same",
        "model.shared_units": [256],
        "model.head_units": [],
        "model.dropout": 0.5,
        "tasks.gender.output": "sigmoid",
        "model.weight_init": "kaiming_uniform",
        "optim.lr": 1e-4,
    },
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_baseline_experiments_have_the_published_architecture(
    name: str, settings_of: Callable[..., dict[str, Any]]
) -> None:
    channels, side, batch_size, epochs, age, weights = PUBLISHED[name]
    settings = settings_of(f"experiment={name}")
    data = AgeGenderDataModule(**kwargs_of(settings["data"]))
    assert (data.channels, data.image_size, data.batch_size) == (channels, side, batch_size)
    assert settings["trainer"]["max_epochs"] == epochs and settings["callbacks"]["early_stopping"] is None
    assert settings["tasks"]["age"]["_target_"] == AGES[age]["_target_"] and settings["data"]["split"] == "content"
    assert settings["optim"]["optimizer"]["_target_"] == "torch.optim.Adam"
    assert (settings["model"]["mean"], settings["model"]["std"]) == ([0.0], [1.0])  # pixels in [0, 1]
    network = {"image_size": side, "in_channels": channels, "tasks": settings["tasks"], **settings["model"]}
    module = AgeGenderModule(network, settings["optim"])
    assert sum(weight.numel() for weight in module.network.parameters()) == weights
    groups = {key: settings[key] for key in ("model", "tasks", "optim", "augment", "loss")}
    default = settings_of(f"age={age}")
    usual = {key: default[key] for key in groups} | {"model": default["model"] | {"mean": [0.0], "std": [1.0]}}
    for key, value in KNOWN_BY[name].items():
        *groups_of, setting = key.split(".")
        node = usual
        for group in groups_of:
            node[group] = dict(node[group])
            node = node[group]
        node[setting] = value
    usual["optim"] = usual["optim"] | {"optimizer": usual["optim"]["optimizer"] | {"lr": usual["optim"]["lr"]}}
    assert groups == usual
