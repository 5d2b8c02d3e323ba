"""torchvision's classifiers as trunks: which are taken, what is removed, and the published weights' way in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.nodes import network_settings
from torch import nn
from torchvision import models

from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.models.trunks.torchvision import TorchvisionTrunk

Run = Callable[..., Outcome]
MODEL = ("model=torchvision", "data.grayscale=false", "data.image_size=32")
BASE = [setting for setting in TINY if not setting.startswith(("model.", "data.image_size"))]
# The smallest of each family; others differ in their size.
FAMILIES = ["efficientnet_b0", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5"]
LARGER_FAMILIES = ["alexnet", "convnext_tiny", "densenet121", "mnasnet0_5", "mobilenet_v2", "regnet_y_400mf"]


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER_FAMILIES)])
def test_torchvision_families_work_as_trunks(name: str) -> None:
    net = MultiTaskNet(64, 3, **network_settings({"name": "dldl"}, "torchvision", head_units=(), name=name)).eval()
    with torch.inference_mode():
        outputs = net(torch.rand(2, 3, 64, 64))
    assert outputs["age"].shape == (2, 121) and outputs["gender"].shape == (2, 1)
    assert net.get_parameter("heads.age.0.weight").shape[1] == net.trunk.num_features


def test_torchvision_trunk_lacks_the_classifier_layer_only() -> None:
    whole, trunk = models.resnet18(weights=None), TorchvisionTrunk(3, 64, "resnet18")
    names = {name for name, _ in whole.named_parameters()} - {"fc.weight", "fc.bias"}
    assert {name.removeprefix("classifier.") for name, _ in trunk.named_parameters()} == names
    trunk.classifier.load_state_dict(whole.state_dict(), strict=False)
    whole.fc = nn.Identity()
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(trunk.eval()(images), whole.eval()(images))


def test_gray_image_is_expanded_to_three_equal_channels() -> None:
    torch.manual_seed(0)
    trunk = TorchvisionTrunk(1, 64, "resnet18").eval()
    gray = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(trunk(gray), trunk.classifier(gray.repeat(1, 3, 1, 1)))
    mean, std = TorchvisionTrunk.published(True, 1, "resnet18")[1:]
    assert mean == [pytest.approx(0.449, abs=1e-3)] and std == [pytest.approx(0.226, abs=1e-3)]


def test_head_initialization_keeps_the_torchvision_trunk_unchanged() -> None:
    torch.manual_seed(0)
    plain = TorchvisionTrunk(3, 64, "resnet18").state_dict()
    torch.manual_seed(0)
    net = MultiTaskNet(
        64, 3, **network_settings({"name": "mae"}, "torchvision", weight_init="kaiming_uniform", name="resnet18")
    )
    assert all(torch.equal(value, net.trunk.state_dict()[name]) for name, value in plain.items())


@pytest.mark.parametrize(
    ("name", "image_size", "reason"),
    [
        ("mobilenet_v22", 64, "none of torchvision's classifiers; did you mean mobilenet_v2"),
        ("fcn_resnet50", 64, "none of torchvision's classifiers"),
        ("squeezenet1_1", 64, "doesn't end in one dense layer"),
        ("googlenet", 64, "doesn't end in one dense layer"),
        pytest.param("vit_b_16", 64, "rejects images of data.image_size=64", marks=pytest.mark.slow),
        ("alexnet", 32, "rejects images of data.image_size=32"),
    ],
)
def test_unsupported_torchvision_model_is_refused_in_one_line(name: str, image_size: int, reason: str) -> None:
    with pytest.raises(AgeGenderError, match=reason) as refused:
        TorchvisionTrunk(3, image_size, name)
    assert "\n" not in str(refused.value)


def published(home: Path, name: str = "mobilenet_v3_small") -> nn.Module:
    """Puts weights into a folder as torchvision caches them; their hash is in the name, so it isn't checked here."""
    torch.manual_seed(1)
    made: nn.Module = models.get_model(name, weights=None)
    url = models.get_model_weights(name).IMAGENET1K_V1.url
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(made.state_dict(), home / "hub" / "checkpoints" / os.path.basename(url))
    return made


def test_published_weights_are_read_from_the_torchvision_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = published(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    trunk = TorchvisionTrunk(3, 64, "mobilenet_v3_small")
    trunk.load_pretrained("IMAGENET1K_V1")
    theirs = made.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in trunk.classifier.state_dict().items())
    with pytest.raises(AgeGenderError, match=r"IMAGENET1K_V9 is none of the weights of model.name=mobilenet_v3_small"):
        trunk.load_pretrained("IMAGENET1K_V9")


def test_weights_of_another_classifier_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published(tmp_path)
    file = next((tmp_path / "hub" / "checkpoints").iterdir())
    torch.save(models.get_model("shufflenet_v2_x0_5").state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(AgeGenderError, match="the weights of IMAGENET1K_V1 don't fit it"):
        TorchvisionTrunk(3, 64, "mobilenet_v3_small").load_pretrained("IMAGENET1K_V1")


class Payload:
    """Would create a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_cached_weights_file_with_code_is_not_executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published(tmp_path)
    file = next((tmp_path / "hub" / "checkpoints").iterdir())
    torch.save({"features": Payload(tmp_path / "harm")}, file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(AgeGenderError, match="can't be loaded safely as weights") as refused:
        TorchvisionTrunk(3, 64, "mobilenet_v3_small").load_pretrained("IMAGENET1K_V1")
    assert not (tmp_path / "harm").exists() and "\n" not in str(refused.value)


@pytest.mark.slow
def test_checkpoint_of_a_pretrained_run_needs_no_published_weights(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: Path
) -> None:
    published(tmp_path / "home")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    asked = (*BASE, *MODEL, "model.name=mobilenet_v3_small", "model.pretrained=true", "optim.trunk_lr_mult=0")
    trained = run_here("train.py", *asked, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert trained.code == 0, trained.err
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    network = state["agegender"]["network"]
    assert "pretrained" not in network and network["mean"] == pytest.approx([0.485, 0.456, 0.406])
    first = state["state_dict"]["network.trunk.classifier.features.0.0.weight"]
    torch.manual_seed(1)  # a rate of zero leaves the trunk where it began
    assert torch.equal(first, models.get_model("mobilenet_v3_small", weights=None).state_dict()["features.0.0.weight"])
    again = run_here("train.py", *asked, "trainer.max_epochs=2", "resume=run")
    assert again.code == 0, again.err
    assert metrics_of(tmp_path / "run")["epochs"] == 2
    assert run_here("predict.py", "detect=never", f"img={next(faces.glob('*.jpg'))}", "weights=run").code == 0


def test_unavailable_weights_end_the_run_in_one_line(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens
    outcome = run_here("train.py", *BASE, *MODEL, "model.name=mobilenet_v3_small", "model.pretrained=true")
    assert outcome.code == 1
    assert "model.pretrained=IMAGENET1K_V1" in outcome.err and "TORCH_HOME" in outcome.err


def test_torchvision_setting_is_checked_before_data_is_read(run_here: Run) -> None:
    outcome = run_here("train.py", *BASE, *MODEL, "model.pretrained=3.5")
    assert outcome.code == 1 and "model.pretrained" in outcome.err and "images" not in outcome.err
