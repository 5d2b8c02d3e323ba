"""The Python API: training from a script or a notebook."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from conftest import ROOT, TINY, metrics_of
from helpers.nodes import task_nodes
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from agegender import AgeGenderDataModule, AgeGenderModule, compose_config, train
from agegender.errors import AgeGenderError
from agegender.runs.checkpoint import BUNDLED_WEIGHTS, load_checkpoint
from agegender.weights.bundle import bundle

ODD = "my faces (1), [x]={y} ${z}"
NETWORK = {
    "image_size": 32,
    "in_channels": 1,
    "trunk": {"_target_": "agegender.models.trunks.conv_stack.ConvStack", "channels": [8, 16]},
    "head_units": [16],
    "tasks": task_nodes(),
}
OPTIM = {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3}}


def make_trainer() -> pl.Trainer:
    return pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_train_from_python_writes_the_files_of_the_command_and_resumes(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = HydraConfig.instance().cfg
    made = train(compose_config(TINY))
    assert made.folder.parent == tmp_path / "logs" / "default"
    assert {path.name for path in made.folder.iterdir()} == {path.name for path in trained_run.iterdir()}
    assert {path.name for path in (made.folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    wanted = metrics_of(trained_run)
    assert made.metrics == metrics_of(made.folder)
    assert made.score == made.metrics["best_score"] == pytest.approx(wanted["best_score"])
    assert made.metrics["overrides"] == " ".join(TINY)
    saved, theirs = (OmegaConf.load(run / ".hydra" / "config.yaml") for run in (made.folder, trained_run))
    assert saved == theirs
    again = train(compose_config([f"resume={made.folder}", "trainer.max_epochs=3"]))
    assert (again.folder, again.metrics["epochs"]) == (made.folder, 3)
    assert HydraConfig.instance().cfg is before  # Hydra's global state is restored


def test_compose_config_preserves_paths_and_reads_user_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, rate in ((tmp_path / "conf", 5e-4), (tmp_path / "elsewhere", 7e-4)):
        (folder / "experiment").mkdir(parents=True)
        text = f"# @package _global_\ndefaults:\n  - small\noptim:\n  lr: {rate}\n"
        (folder / "experiment" / f"mine_{folder.name}.yaml").write_text(text)
    config = compose_config([f"data.dir={ODD}", "weights=epoch=3.ckpt", "experiment=mine_conf"])
    assert (config.data.dir, config.weights, config.optim.lr) == (ODD, "epoch=3.ckpt", 5e-4)
    assert config.model.trunk._target_ == "agegender.models.trunks.resnet.ResNetTrunk"
    assert compose_config(["experiment=mine_elsewhere"], config_dir="elsewhere").optim.lr == 7e-4
    with pytest.raises(AgeGenderError, match=r"experiment=mine_elsewhere is not known; choose from .*, mine_conf,"):
        compose_config(["experiment=mine_elsewhere"])


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["optim=adan"], "optim=adan is not known; did you mean adam?"),
        (["model.dropuot=1"], "model.dropuot is not known; did you mean dropout?"),
        (["resume=nowhere"], "nowhere does not exist; give a run's folder"),
        (["dropout"], "dropout is not a setting; write name=value"),
        (["hydra.callbacks.sweep_summary._target_=os.system"], "os.system is refused"),
    ],
)
def test_compose_config_refuses_invalid_settings_in_one_line(overrides: list[str], line: str) -> None:
    with pytest.raises(AgeGenderError) as error:
        compose_config(overrides)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_train_refuses_a_config_that_is_not_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AgeGenderError, match=r"make it with agegender\.compose_config"):
        train(OmegaConf.create({"seed": 3}))
    with pytest.raises(AgeGenderError, match="leave out sweep="):
        train(compose_config(["sweep=grid"]))
    with pytest.raises(AgeGenderError, match="are for the command line"):
        train(compose_config(["lr_find=true"]))
    with pytest.raises(AgeGenderError, match=r"neither data\.dir nor data.table is set"):
        train(compose_config(["data=table", "trainer=cpu"]))
    assert not any(path.name == "checkpoints" for path in tmp_path.rglob("*"))


def test_plain_trainer_validates_fits_and_tests(faces: Path) -> None:
    data = AgeGenderDataModule(dir=str(faces), image_size=32, batch_size=16)
    module, trainer = AgeGenderModule(NETWORK, OPTIM), make_trainer()
    before = trainer.validate(module, data, verbose=False)[0]
    trainer.fit(module, data)
    after = trainer.validate(module, data, verbose=False)[0]
    assert set(before) == set(after) and before["val/age_mae"] != after["val/age_mae"]
    assert trainer.test(module, data, verbose=False)[0]["test/age_mae"] > 0


def test_plain_trainer_ignores_missing_labels(faces: Path, tmp_path: Path) -> None:
    rows = [f"{path},{path.name.split('_')[0]}," for path in sorted(faces.glob("*.jpg"))]
    (tmp_path / "ages.csv").write_text("\n".join(["path,age,gender", *rows, f"{next(faces.glob('*.jpg'))},,f"]) + "\n")
    data = AgeGenderDataModule(table=str(tmp_path / "ages.csv"), image_size=32, batch_size=16)
    module, trainer = AgeGenderModule(NETWORK, OPTIM), make_trainer()
    trainer.fit(module, data)
    assert all(bool(torch.isfinite(weight).all()) for weight in module.parameters())


def test_load_from_checkpoint_accepts_every_checkpoint_of_a_run(trained_run: Path, faces: Path, tmp_path: Path) -> None:
    packed = bundle(trained_run, tmp_path / "packed.ckpt")
    checkpoints = trained_run / "checkpoints"
    data = AgeGenderDataModule(dir=str(faces), image_size=32, batch_size=16)
    data.setup()
    images = data.split("test").__getitems__(torch.arange(8))["image"]
    ages = {}
    for given in (checkpoints / "best.ckpt", str(checkpoints / "last.ckpt"), trained_run, packed):
        module = AgeGenderModule.load_from_checkpoint(given).eval()
        assert all(task.calibration is not None for _, task in module.network.each_task())
        with torch.inference_mode():
            ages[given] = module(images)["age"]
    torch.testing.assert_close(ages[packed], ages[trained_run], atol=0.1, rtol=0)
    torch.testing.assert_close(ages[trained_run], ages[checkpoints / "best.ckpt"], atol=0, rtol=0)
    trainer = make_trainer()
    trainer.fit(AgeGenderModule.load_from_checkpoint(packed, optim=OPTIM), data)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    assert AgeGenderModule.load_from_checkpoint(tmp_path / "mine.ckpt").optim == OPTIM


@pytest.mark.parametrize("name", BUNDLED_WEIGHTS)
def test_load_from_checkpoint_accepts_the_bundled_weights(name: str) -> None:
    held = load_checkpoint(BUNDLED_WEIGHTS[name])
    for given in (name, BUNDLED_WEIGHTS[name]):
        module = AgeGenderModule.load_from_checkpoint(given)
        assert all(task.calibration is not None for _, task in module.network.each_task())
        for key, value in module.network.state_dict().items():
            saved = held["network"][key]
            same = torch.equal(value, saved.to(value.dtype)) if isinstance(value, torch.Tensor) else value == saved
            assert same, key


def test_load_from_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    torch.save({"agegender": {}, "state_dict": Payload()}, tmp_path / "trap.ckpt")
    with pytest.raises(AgeGenderError, match="can't be loaded safely"):
        AgeGenderModule.load_from_checkpoint(tmp_path / "trap.ckpt", weights_only=False)
    assert not (tmp_path / "harm").exists()


def test_python_page_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    first, resumed, own, *_ = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len([line for line in first.splitlines() if line.strip()]) <= 5
    small = '*["data.synthetic.count=60", "trainer.log_every_n_steps=1", "trainer=cpu"], "data.synthetic.size=64"'
    names: dict[str, Any] = {}
    exec(first.replace('"trainer.max_epochs=5"', f'"trainer.max_epochs=1", {small}, "report=false"'), names)
    exec(resumed.replace("max_epochs=10", "max_epochs=2"), names)
    assert names["result"].metrics["epochs"] == 2
    options = "accelerator='cpu', logger=False, enable_progress_bar=False, enable_model_summary=False"
    exec(own.replace("max_epochs=3", f"max_epochs=1, {options}").replace('"count": 500', '"count": 60'), names)
    shutil.rmtree(tmp_path / "logs")
