"""Classes of a user's package: refused until it is trusted, then usable in every command."""

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
from agegender.models.network import MultiTaskNet

Run = Callable[..., Outcome]

PARTS = '''
"""A trunk, a task, a callback and a scheduler of somebody's own."""

from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import BinaryAccuracy

from agegender.tasks import NumberTask, Task, TaskMetric
from agegender.tasks.info import TaskInfo

with Path("imported.txt").open("a") as file:
    file.write("imported\\n")


class Trunk(nn.Module):
    def __init__(self, in_channels, width=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(in_channels, width, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.num_features = 4 * width

    def forward(self, images):
        return self.layers(images).flatten(1)


class LogAge(NumberTask):
    """Learns the logarithm of the age."""

    def loss(self, raw, age):
        return functional.smooth_l1_loss(raw[:, 0], torch.log1p(age) - 3, reduction="none")

    def value(self, raw):
        return torch.expm1(raw[:, 0].float().clamp(-3, 2) + 3)

    def spread(self, raw):
        return 0.3 * (self.value(raw) + 1)


class Hinge(Task):
    """A class by the hinge loss of a support vector machine: a task that inherits from the interface alone."""

    kind, num_outputs = "binary", 1

    def __init__(self, label, classes, weight=1.0):
        super().__init__(label, weight)
        self.classes = tuple(classes)

    @property
    def info(self):
        return TaskInfo(self.name, self.kind, self.label, (f"p_{self.name}",), (4,), self.classes)

    def loss(self, raw, target):
        return (1 - raw[:, 0] * (2 * target - 1)).clamp(min=0)

    def decode(self, raw):
        return {f"p_{self.name}": raw[:, 0].sigmoid()}

    def metrics(self):
        return {"acc": TaskMetric(BinaryAccuracy(sync_on_compute=False), f"p_{self.name}", "accuracy", "{:.1%}")}


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
SMALL = (*(setting for setting in TINY if not setting.startswith("model.")), "data.synthetic.count=60")
NETWORK = ("~model.trunk", "+model.trunk={_target_: my_plugin.parts.Trunk, width: 5}", "model.head_units=[16]")
TASK = ("~age", "+tasks.age._target_=my_plugin.parts.LogAge")
CALLBACK = ("+callbacks.count={_target_: my_plugin.parts.Count, file: epochs.txt}",)
SCHEDULER = ("optim.scheduler={_target_: my_plugin.parts.Halving, interval: epoch}",)
ALL = (*NETWORK, *TASK, *CALLBACK, *SCHEDULER, "optim.lr=8e-3")


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Creates a package in the working folder, which is not on Python's path."""
    (tmp_path / "my_plugin").mkdir()
    (tmp_path / "my_plugin" / "parts.py").write_text(PARTS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(trust.VARIABLE, "")  # else `trust=` of the export leaks into later tests
    _unload()
    yield
    _unload()


def _unload() -> None:
    """Unloads the package, as in a new process."""
    trust._plugins.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "my_plugin"]:
        del sys.modules[name]
    sys.path_importer_cache.clear()


@pytest.mark.parametrize("parts", [NETWORK, TASK, CALLBACK, SCHEDULER], ids=["trunk", "task", "callback", "scheduler"])
def test_untrusted_package_is_refused_and_never_imported(parts: tuple[str, ...], run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *SMALL, *parts)
    outcome.assert_one_line_error(" is refused; ", "add trust=my_plugin to the command line")
    assert not (tmp_path / "imported.txt").exists()


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("trust: my_plugin\n", "trust= counts on the command line only"),
        ("hydra: {job: {env_set: {AGEGENDER_TRUST: my_plugin}}}\n", "hydra.job.env_set.AGEGENDER_TRUST is refused"),
    ],
)
def test_trust_in_a_config_file_is_refused(experiment: str, message: str, run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)
    (tmp_path / "theirs" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{experiment}")
    outcome = run_here("train.py", "--config-dir", "theirs", *SMALL, "experiment=evil", *CALLBACK)
    outcome.assert_one_line_error(f"error: {message}")
    assert not (tmp_path / "imported.txt").exists()


def test_trusted_package_trains_resumes_and_predicts(run_here: Run, tmp_path: Path, faces: Path) -> None:
    begun = run_here("train.py", *SMALL, *ALL, "trust=my_plugin", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert begun.code == 0, begun.err
    assert "trust" not in (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()
    network = torch.load("run/checkpoints/best.ckpt", weights_only=True)["agegender"]["network"]
    assert network["trunk"] == {"_target_": "my_plugin.parts.Trunk", "width": 5}
    assert network["tasks"]["age"]["_target_"] == "my_plugin.parts.LogAge"

    # trust in the overrides of a run is ignored, even where somebody wrote it there
    record = tmp_path / "run" / ".hydra" / "overrides.yaml"
    record.write_text(record.read_text() + "- +trust=my_plugin\n")
    _unload()
    refused = run_here("train.py", "resume=run", "trainer.max_epochs=2")
    refused.assert_one_line_error("add trust=my_plugin")
    resumed = run_here("train.py", "resume=run", "trainer.max_epochs=2", "trust=my_plugin")
    assert resumed.code == 0, resumed.err
    assert (tmp_path / "epochs.txt").read_text() == "0 0.004000\n1 0.002000\n"  # halved before the hook
    assert metrics_of(tmp_path / "run")["epochs"] == 2

    face = str(next(faces.iterdir()))
    _unload()
    refused = run_here("predict.py", f"img={face}", "weights=run")
    assert refused.code == 1 and "my_plugin.parts.LogAge is refused" in refused.err
    answered = run_here("predict.py", f"img={face}", "weights=run", "trust=my_plugin", "out=-")
    assert answered.code == 0, answered.err
    assert 0 < json.loads(answered.out)["age"] < 120


@pytest.mark.slow
def test_trusted_package_exports(
    run_here: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    begun = run_here("train.py", *SMALL, *ALL, "trust=my_plugin", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert begun.code == 0, begun.err
    _unload()
    refused = run_here("agegender/prediction/export/__main__.py", "weights=run", "out=model.onnx")
    assert refused.code == 1 and "my_plugin.parts.LogAge is refused" in refused.err
    exported = run_here("agegender/prediction/export/__main__.py", "weights=run", "out=model.onnx", "trust=my_plugin")
    assert exported.code == 0, exported.err
    assert (tmp_path / "model.onnx").stat().st_size > 1000
    capfd.readouterr()


def test_trust_is_read_from_the_environment(run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGEGENDER_TRUST", "other,my_plugin")
    outcome = run_here("train.py", *SMALL, *ALL, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("report", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_task_of_the_interface_alone_trains_is_tested_and_reported(run_here: Run, tmp_path: Path, report: str) -> None:
    hinge = "+tasks.sex={_target_: my_plugin.parts.Hinge, label: gender, classes: [male, female]}"
    asked = (*TINY, "~tasks.gender", hinge, "trust=my_plugin", "callbacks=ema", f"report={report}", "hydra.run.dir=run")
    outcome = run_here("train.py", *asked, "monitor=val/sex_acc")
    assert outcome.code == 0, outcome.err
    assert "no report was written" not in outcome.out
    assert any((tmp_path / "run").rglob("report.html")) is (report == "true")
    results = metrics_of(tmp_path / "run")
    assert results["best_score"] == results["val/sex_acc"] and 0 < results["test/sex_loss"] < 3
    assert "p_sex" in (tmp_path / "run" / "predictions.csv").read_text().splitlines()[0].split(",")


def test_installed_plugin_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"_target_": "my_plugin.parts.Trunk"}
    with pytest.raises(AgeGenderError, match="is refused"):
        instantiate(node, "model.trunk", in_channels=1)
    record = tmp_path / "my_plugin-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: my_plugin\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[agegender.plugins]\nparts = my_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _unload()
    assert instantiate(node, "model.trunk", in_channels=1).num_features == 24


def test_checkpoint_names_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = {"image_size": 32, "in_channels": 1, "trunk": {"_target_": "my_plugin.parts.Trunk"}}
    network["tasks"] = {"age": {"_target_": "my_plugin.parts.LogAge", "label": "age"}}
    shutil.rmtree(tmp_path / "my_plugin")
    with pytest.raises(AgeGenderError, match=r"the package my_plugin is not installed here: install it, and .* trust="):
        MultiTaskNet(**network)  # type: ignore[arg-type]
    monkeypatch.setenv("AGEGENDER_TRUST", "my_plugin")
    with pytest.raises(AgeGenderError, match=r"my_plugin\.parts\.LogAge can't be imported.*install it"):
        MultiTaskNet(**network)  # type: ignore[arg-type]


def test_trusted_package_may_provide_factories_of_the_expected_type_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGEGENDER_TRUST", "my_plugin")
    made = instantiate({"_target_": "my_plugin.parts.make_trunk"}, "model.trunk", in_channels=1)
    assert made.num_features == 12
    for name, message in (
        ("NotATrunk", r"is refused; it is not a subclass of torch\.nn\.Module"),
        ("torch.load", "is refused; it is not a class"),
        ("Path", "is refused; it is not a class"),
        ("Nothing", "can't be imported"),
    ):
        with pytest.raises(AgeGenderError, match=message):
            instantiate({"_target_": f"my_plugin.parts.{name}"}, "model.trunk", in_channels=1)
