"""timm's backbones as trunks: built without a look at the disk or the network, pretrained when a training starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, run_script
from helpers.nodes import age_node

from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.models.trunks.timm import TimmTrunk
from agegender.models.trunks.trunk import complete

timm = pytest.importorskip("timm")
SMALL = (*(setting for setting in TINY if not setting.startswith("model.")), "model=timm", "model.name=test_resnet")


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv3_small_050"])
@pytest.mark.parametrize("channels", [1, 3])
def test_timm_trunk_reports_its_number_of_features(name: str, channels: int) -> None:
    trunk = TimmTrunk(channels, 64, name).eval()
    with torch.inference_mode():
        assert trunk(torch.rand(2, channels, 64, 64)).shape == (2, trunk.num_features)


def test_transformer_accepts_a_configured_image_size() -> None:
    with pytest.raises(AgeGenderError, match=r"rejects images of data\.image_size=64 .*model\.trunk\.img_size=64"):
        TimmTrunk(3, 64, "vit_tiny_patch16_224")
    assert TimmTrunk(3, 64, "vit_tiny_patch16_224", img_size=64).num_features > 0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet19", {}, "none of timm's backbones"),
        ("hf-hub:somebody/resnet18", {}, "none of timm's backbones"),
        ("resnet18.a:b", {}, "none of timm's backbones"),
        ("resnet18", {"checkpoint_path": "x.pth"}, "model.trunk.checkpoint_path is not allowed"),
        ("resnet18", {"pretrained_cfg_overlay": {"file": "x"}}, "model.trunk.pretrained_cfg_overlay is not allowed"),
        ("resnet18", {"pretrained": True}, "model.trunk.pretrained is not allowed"),
        ("resnet18", {"sizes": 3}, "can't be built with these settings"),
    ],
)
def test_checkpoint_cannot_trigger_a_timm_download(name: str, options: dict[str, Any], said: str) -> None:
    trunk = {"_target_": "agegender.models.trunks.timm.TimmTrunk", "name": name, **options}
    with pytest.raises(AgeGenderError, match=said):
        MultiTaskNet(64, 3, age_node("mae"), trunk)


def test_null_normalization_uses_the_published_weights_statistics() -> None:
    node = {"_target_": "agegender.models.trunks.timm.TimmTrunk", "name": "resnet18"}
    model: dict[str, Any] = {"trunk": node, "pretrained": True, "mean": None, "std": None}
    assert complete(model, 3)["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert complete(model, 1)["std"] == pytest.approx([(0.229 + 0.224 + 0.225) / 3])
    assert complete(model | {"mean": [0.5]}, 3)["mean"] == [0.5]
    with pytest.raises(AgeGenderError, match=r"timm has no weights resnet18\.nope; it has a1_in1k, "):
        complete(model | {"pretrained": "nope"}, 3)


def test_training_starts_from_published_weights_and_its_checkpoint_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Callable[..., Outcome], faces: Path
) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(7)
    published = timm.create_model("test_resnet")
    cached = tmp_path / "hf" / "hub" / "models--timm--test_resnet.r160_in1k"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(published.state_dict(), cached / "snapshots" / ("0" * 40) / "model.safetensors")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = (*SMALL, "data.grayscale=false", "model.pretrained=true", "optim.trunk_lr_mult=0", "hydra.run.dir=run")
    trained = run_script("train.py", *asked, cwd=tmp_path)
    assert trained.code == 0, trained.err
    kept = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    state, origin = kept["state_dict"], kept["agegender"]["origin"]
    first = next(iter(published.state_dict()))
    assert torch.equal(state[f"network.trunk.backbone.{first}"], published.state_dict()[first])
    assert origin.startswith("test_resnet, ") and "name" not in kept["agegender"]["network"]
    assert kept["agegender"]["network"]["trunk"]["name"] == "test_resnet"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nothing"))
    answered = run_here("predict.py", f"img={next(faces.iterdir())}", "weights=run")
    assert answered.code == 0, answered.err


def test_unavailable_timm_weights_are_an_error_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    outcome = run_script("train.py", *SMALL, "model.pretrained=true", cwd=tmp_path)
    outcome.assert_one_line_error()
    assert "model.pretrained=True: the weights of test_resnet can't be read" in outcome.err and "HF_HOME" in outcome.err
