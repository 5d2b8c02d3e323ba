"""Face-recognition networks as trunks: alignment, features, what is trained, and the published weights' way in."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import get_args
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers.made_face_weights import make_face_weights
from helpers.nodes import network_settings
from torch import nn

from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.models.trunks import face_weights
from agegender.models.trunks.face import ARCFACE_TEMPLATE, CROP_TEMPLATE, FaceTrunk
from agegender.models.trunks.face_weights import PUBLISHED, Backbone, describe_weights, find_weights, load_face_weights
from agegender.prediction.faces.alignment import TEMPLATE

BACKBONES = get_args(Backbone)


def test_crop_template_equals_that_of_face_alignment() -> None:
    np.testing.assert_array_equal(CROP_TEMPLATE, TEMPLATE)


@pytest.mark.parametrize("size", [90, 128, 200])
def test_align_brings_a_crops_landmarks_onto_arcfaces_template(size: int) -> None:
    trunk = FaceTrunk(1, size)
    for point, wanted in zip(CROP_TEMPLATE, ARCFACE_TEMPLATE, strict=True):
        x, y = ((torch.arange(size) + 0.5 - size * share) / (0.04 * size) for share in point)
        spot = torch.exp(-(x[None, :].square() + y[:, None].square()) / 2)
        aligned = trunk.align(spot[None, None])[0, 0]
        total, middles = aligned.sum(), torch.arange(112) + 0.5
        found = float((aligned.sum(0) * middles).sum() / total), float((aligned.sum(1) * middles).sum() / total)
        # one scale and one shift fit five points to 3 pixels; the exact affine place is tested below
        assert np.hypot(found[0] - wanted[0], found[1] - wanted[1]) < 3.2, (point, found, wanted)


def test_align_keeps_a_constant_image_and_replicates_its_border() -> None:
    trunk = FaceTrunk(3, 128)
    torch.testing.assert_close(trunk.align(torch.full((1, 3, 128, 128), 0.3)), torch.full((1, 3, 112, 112), 0.3))
    top = torch.zeros(1, 3, 128, 128)
    top[:, :, :1] = 1
    assert float(trunk.align(top)[0, 0, :20].min()) == pytest.approx(1, abs=1e-5)  # above the crop lies its first row


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("channels", [1, 3])
def test_trunk_returns_float32_features_under_autocast(backbone: Backbone, channels: int) -> None:
    trunk = FaceTrunk(channels, 64, backbone).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        features = trunk(torch.rand(2, channels, 64, 64))
    assert features.shape == (2, trunk.num_features) and features.dtype == torch.float32 and features.isfinite().all()


def test_trunk_refuses_images_of_too_few_pixels() -> None:
    with pytest.raises(AgeGenderError, match=r"data.image_size=16 is too small for model=face"):
        FaceTrunk(3, 16)


def test_strided_depthwise_layers_equal_plain_convolution_and_its_gradients() -> None:
    torch.manual_seed(0)
    trunk = FaceTrunk(3, 64)
    strided = [layer for layer in trunk.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    depthwise = [layer for layer in strided if layer.groups == layer.in_channels]
    assert len(depthwise) == 3
    for layer in depthwise:
        plain = nn.Conv2d(layer.in_channels, layer.out_channels, 3, 2, 1, groups=layer.groups)
        plain.load_state_dict(layer.state_dict())
        for side in (14, 7):
            maps = torch.rand(2, layer.in_channels, side, side)
            answers = [made(maps) for made in (layer, plain)]
            torch.testing.assert_close(*answers)
            gradients = [
                torch.autograd.grad(a.square().sum(), made.weight)
                for a, made in zip(answers, (layer, plain), strict=True)
            ]
            torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def network(trainable: str, **options: object) -> MultiTaskNet:
    made: dict[str, object] = {
        "trunk": "face",
        "feature_clip": 6.0,
        "head_units": (8,),
        "trainable": trainable,
        **options,
    }
    return MultiTaskNet(64, 3, **network_settings({"name": "dldl"}, **made))  # type: ignore[arg-type]


@pytest.mark.parametrize("trainable", ["none", "upper", "all"])
def test_trainable_selects_the_layers_with_gradients(trainable: str) -> None:
    net = network(trainable).train()
    outputs = net(torch.rand(2, 3, 64, 64))
    (outputs["age"].square().sum() + outputs["gender"].square().sum()).backward()
    assert isinstance(net.trunk, FaceTrunk)
    trained = {id(weight) for weight in net.parameters() if weight.grad is not None}
    upper = {id(weight) for layer in net.trunk.upper for weight in layer.parameters()}
    heads = {id(weight) for name, weight in net.named_parameters() if not name.startswith("trunk.")}
    wanted = {"none": heads, "upper": heads | upper, "all": {id(weight) for weight in net.parameters()}}
    assert trained == wanted[trainable] and len(heads) < len(heads | upper) < len(wanted["all"])


def test_frozen_trunk_keeps_its_batch_norm_statistics() -> None:
    net = MultiTaskNet(
        64, 3, **network_settings({"name": "mae"}, "torchvision", name="resnet18", trainable="none")
    ).train()
    before = {name: value.clone() for name, value in net.trunk.state_dict().items()}
    net(torch.rand(4, 3, 64, 64))
    assert not net.trunk.training and net.heads.training
    assert all(torch.equal(value, before[name]) for name, value in net.trunk.state_dict().items())


def test_trainable_upper_is_refused_for_a_trunk_without_upper_layers() -> None:
    with pytest.raises(AgeGenderError, match=r"model.trainable=upper requires a trunk that defines its upper layers"):
        MultiTaskNet(64, 3, **network_settings({"name": "mae"}, "residual", trainable="upper"))


def test_scaler_standardizes_clips_and_leaves_a_constant_feature_alone() -> None:
    net = network("none")
    assert net.scaler is not None
    features = torch.randn(500, net.trunk.num_features) * 3 + 7
    features[:, 0] = 2.0
    net.scaler.fit(features)
    scaled = net.scaler(features)
    assert scaled[:, 1:].mean(0).abs().max() < 1e-4 and (scaled[:, 1:].std(0, correction=0) - 1).abs().max() < 0.05
    assert (scaled[:, 0] == 0).all() and float(net.scaler(features + 1e6).max()) == 6.0
    with pytest.raises(AgeGenderError, match=r"model\.feature_clip=0"):
        network("none", feature_clip=0.0)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("norms", [True, False])
def test_weights_are_read_with_batch_norms_folded_into_the_convolutions(
    tmp_path: Path, backbone: Backbone, norms: bool
) -> None:
    made = make_face_weights(tmp_path / "made.onnx", backbone, norms=norms)
    trunk = FaceTrunk(3, 128, backbone)
    load_face_weights(trunk, str(tmp_path / "made.onnx"))
    for name, value in made.state_dict().items():
        torch.testing.assert_close(trunk.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    make_face_weights(tmp_path / "made.onnx", "sface")
    with pytest.raises(AgeGenderError, match=r"is not of the network model.trunk.backbone=mobilefacenet"):
        load_face_weights(FaceTrunk(3, 128), str(tmp_path / "made.onnx"))
    (tmp_path / "torn.onnx").write_bytes(b"no graph")
    with pytest.raises(AgeGenderError, match=r"torn.onnx is no ONNX model \([^\n]*\)$"):
        load_face_weights(FaceTrunk(3, 128), str(tmp_path / "torn.onnx"))
    with pytest.raises(AgeGenderError, match=r"neither a file nor one of: w600k_mbf, sface"):
        describe_weights("w600k")
    with pytest.raises(AgeGenderError, match=r"set its architecture with model.trunk.backbone=mobilefacenet or"):
        describe_weights(str(tmp_path / "made.onnx"))
    with pytest.raises(AgeGenderError, match=r"w600k_mbf are for model.trunk.backbone=mobilefacenet, not for sface"):
        describe_weights("w600k_mbf", "sface")


def test_offline_error_names_the_weights_path_and_license(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise URLError("no route")

    monkeypatch.setenv("AGEGENDER_FACE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(AgeGenderError) as error:
        find_weights("w600k_mbf")
    told = str(error.value)
    assert "no route" in told and "non-commercial research only" in told and str(tmp_path) in told and "\n" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("packed", [True, False])
def test_downloaded_weights_are_cached_and_checked_by_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    content, calls = b"the network", []

    def download(url: str, target: str) -> None:
        calls.append(url)
        if packed:
            with zipfile.ZipFile(target, "w") as archive:
                archive.writestr("buffalo_sc/w600k_mbf.onnx", content)
        else:
            Path(target).write_bytes(content)

    known = PUBLISHED["w600k_mbf"]._replace(sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(face_weights.PUBLISHED, "w600k_mbf", known)
    monkeypatch.setenv("AGEGENDER_FACE_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = find_weights("w600k_mbf")
    assert path.read_bytes() == content and find_weights("w600k_mbf") == path and len(calls) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["w600k_mbf.onnx"]
    path.write_bytes(b"a netwo\x00k")
    with pytest.raises(AgeGenderError, match="is damaged or another file"):
        find_weights("w600k_mbf")


@pytest.mark.parametrize(("name", "scale"), [("w600k_mbf", 127.5), ("sface", 128.0)])
def test_published_weights_give_the_outputs_of_onnx_runtime(name: str, scale: float) -> None:
    if not os.environ.get("AGEGENDER_FACE_WEIGHTS"):
        pytest.skip("set AGEGENDER_FACE_WEIGHTS to a folder with the published files")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    trunk = FaceTrunk(3, 128, PUBLISHED[name].backbone).eval()
    load_face_weights(trunk, name)
    session = onnxruntime.InferenceSession(str(find_weights(name)), options)
    pixels = torch.rand(1, 3, 112, 112) * 255
    maps = (pixels - 127.5) / scale
    given = maps if name == "w600k_mbf" else pixels  # SFace's graph normalizes by itself
    (wanted,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
    with torch.inference_mode():
        for stage in trunk.stages:
            maps = stage(maps)
        if trunk.embed is not None:
            np.testing.assert_allclose(trunk.embed(maps).numpy(), wanted, atol=1e-4)
            return
    import onnx  # of SFace the last maps are compared: its embedding is no part of the trunk

    graph = onnx.load(str(find_weights(name)))
    graph.graph.output.append(onnx.ValueInfoProto(name="conv_14_relu"))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    (wanted,) = session.run(["conv_14_relu"], {session.get_inputs()[0].name: given.numpy()})
    np.testing.assert_allclose(maps.numpy(), wanted, atol=1e-3)
