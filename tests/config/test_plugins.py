"""Parts of a package of the user's own: refused until a person trusts it, and then as good as ours everywhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY, Outcome, metrics_of

from agegender.config import trust
from agegender.config.allowlist import instantiate
from agegender.errors import AgeGenderError
from agegender.models.network import AgeGenderNet

Run = Callable[..., Outcome]

PARTS = '''
"""A trunk, an age coding, a callback and a scheduler of somebody's own."""

from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from agegender.tasks.age_coding import Coding

with Path("imported.txt").open("a") as file:
    file.write("imported\\n")


class Trunk(nn.Module):
    def __init__(self, in_channels, width=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(in_channels, width, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.num_features = 4 * width

    def forward(self, images):
        return self.layers(images).flatten(1)


class LogAge(Coding):
    """Learns the logarithm of the age."""

    def loss(self, raw, age):
        return functional.smooth_l1_loss(raw[:, 0], torch.log1p(age) - 3)

    def decode(self, raw):
        return torch.expm1(raw[:, 0].float().clamp(-3, 2) + 3)

    def spread(self, raw):
        return 0.3 * (self.decode(raw) + 1)


class Count(Callback):
    def __init__(self, file):
        self.file = Path(file)

    def on_train_epoch_end(self, trainer, module):
        with self.file.open("a") as file:
            file.write(f"{trainer.current_epoch} {trainer.optimizers[0].param_groups[0]['lr']:.6f}\\n")


class Halving(LambdaLR):
    def __init__(self, optimizer, every=1):
        super().__init__(optimizer, lambda epoch: 0.5 ** (epoch // every))


class NotATrunk:
    num_features = 3


def make_trunk(in_channels):
    return Trunk(in_channels, 3)
'''
SMALL = tuple(setting for setting in TINY if not setting.startswith("model."))
NETWORK = ("~model.trunk", "+model.trunk={_target_: my_plugin.parts.Trunk, width: 5}", "model.head_units=[16]")
CODING = ("~age", "+age={_target_: my_plugin.parts.LogAge}")
CALLBACK = ("+callbacks.count={_target_: my_plugin.parts.Count, file: epochs.txt}",)
SCHEDULER = ("optim.scheduler={_target_: my_plugin.parts.Halving, interval: epoch}",)
ALL = (*NETWORK, *CODING, *CALLBACK, *SCHEDULER, "optim.lr=8e-3")


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package in the working folder, which is not on Python's path."""
    (tmp_path / "my_plugin").mkdir()
    (tmp_path / "my_plugin" / "parts.py").write_text(PARTS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(trust.VARIABLE, "")  # the export's own `trust=` would hold for the tests that follow
    _forget()
    yield
    _forget()


def _forget() -> None:
    """Makes the package new to Python, as it is to every process."""
    trust._plugins.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "my_plugin"]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


@pytest.mark.parametrize("parts", [NETWORK, CODING, CALLBACK, SCHEDULER], ids=["trunk", "age", "callback", "scheduler"])
def test_a_package_that_nobody_trusts_is_refused_in_one_line_and_never_imported(
    parts: tuple[str, ...], run_here: Run, tmp_path: Path
) -> None:
    outcome = run_here("train.py", *SMALL, *parts)
    outcome.assert_one_line_error()
    assert " is refused; " in outcome.err and "add trust=my_plugin to the command line" in outcome.err
    assert not (tmp_path / "imported.txt").exists()


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        ("trust: my_plugin\n", "trust= counts on the command line only"),
        ("hydra: {job: {env_set: {AGEGENDER_TRUST: my_plugin}}}\n", "hydra.job.env_set.AGEGENDER_TRUST is refused"),
    ],
)
def test_a_config_file_can_not_vouch_for_a_package(experiment: str, said: str, run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{experiment}")
    outcome = run_here("train.py", "--config-dir", "theirs", *SMALL, "experiment=evil", *CALLBACK)
    outcome.assert_one_line_error()
    assert outcome.err.startswith(f"error: {said}")
    assert not (tmp_path / "imported.txt").exists()


def test_a_trusted_package_trains_resumes_predicts_and_exports(
    run_here: Run, tmp_path: Path, faces: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = run_here("train.py", *SMALL, *ALL, "trust=my_plugin", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert begun.code == 0, begun.err
    assert "trust" not in (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()
    network = torch.load("run/checkpoints/best.ckpt", weights_only=True)["agegender"]["network"]
    assert network["trunk"] == {"_target_": "my_plugin.parts.Trunk", "width": 5}
    assert network["age"] == {"_target_": "my_plugin.parts.LogAge"}

    # a run's own record says nothing about trust, even where somebody wrote it there
    record = tmp_path / "run" / ".hydra" / "overrides.yaml"
    record.write_text(record.read_text() + "- +trust=my_plugin\n")
    _forget()
    refused = run_here("train.py", "resume=run", "trainer.max_epochs=2")
    refused.assert_one_line_error("add trust=my_plugin")
    resumed = run_here("train.py", "resume=run", "trainer.max_epochs=2", "trust=my_plugin")
    assert resumed.code == 0, resumed.err
    assert (tmp_path / "epochs.txt").read_text() == "0 0.004000\n1 0.002000\n"  # halved before the hook
    assert metrics_of(tmp_path / "run")["epochs"] == 2

    face = str(next(faces.iterdir()))
    _forget()
    refused = run_here("predict.py", f"img={face}", "weights=run")
    assert refused.code == 1 and "age._target_: my_plugin.parts.LogAge is refused" in refused.err
    answered = run_here("predict.py", f"img={face}", "weights=run", "trust=my_plugin", "out=-")
    assert answered.code == 0, answered.err
    assert 0 < json.loads(answered.out)["age"] < 120

    pytest.importorskip("onnxscript")
    exported = run_here("agegender/prediction/export/__main__.py", "weights=run", "out=model.onnx", "trust=my_plugin")
    assert exported.code == 0, exported.err
    assert (tmp_path / "model.onnx").stat().st_size > 1000
    capfd.readouterr()


def test_the_environment_trusts_a_package_too(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEGENDER_TRUST", "other,my_plugin")
    outcome = run_here("train.py", *SMALL, *ALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err


def test_an_installed_package_that_declares_a_plug_in_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"_target_": "my_plugin.parts.Trunk"}
    with pytest.raises(AgeGenderError, match="is refused"):
        instantiate(node, "model.trunk", in_channels=1)
    record = tmp_path / "my_plugin-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: my_plugin\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[agegender.plugins]\nparts = my_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    assert instantiate(node, "model.trunk", in_channels=1).num_features == 24


def test_a_checkpoint_names_the_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = {"image_size": 32, "in_channels": 1, "trunk": {"_target_": "my_plugin.parts.Trunk"}}
    network["age"] = {"_target_": "my_plugin.parts.LogAge"}
    shutil.rmtree(tmp_path / "my_plugin")
    with pytest.raises(AgeGenderError, match=r"the package my_plugin is not installed here: install it, and .* trust="):
        AgeGenderNet(**network)  # type: ignore[arg-type]
    monkeypatch.setenv("AGEGENDER_TRUST", "my_plugin")
    with pytest.raises(AgeGenderError, match=r"my_plugin\.parts\.LogAge can't be imported.*install it"):
        AgeGenderNet(**network)  # type: ignore[arg-type]


def test_a_trusted_package_may_give_functions_that_build_and_nothing_of_another_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGEGENDER_TRUST", "my_plugin")
    made = instantiate({"_target_": "my_plugin.parts.make_trunk"}, "model.trunk", in_channels=1)
    assert made.num_features == 12
    for name, said in (
        ("NotATrunk", r"is refused; it is not a subclass of torch\.nn\.Module"),
        ("torch.load", "is refused; it is not a class"),
        ("Path", "is refused; it is not a class"),
        ("Nothing", "can't be imported"),
    ):
        with pytest.raises(AgeGenderError, match=said):
            instantiate({"_target_": f"my_plugin.parts.{name}"}, "model.trunk", in_channels=1)
