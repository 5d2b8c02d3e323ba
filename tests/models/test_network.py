"""The whole network: trunk, heads, initialization, precision."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from helpers.nodes import AGES, network_settings
from torch import nn

from agegender.errors import AgeGenderError
from agegender.models.layers import init_weights, mlp
from agegender.models.network import MultiTaskNet
from agegender.models.trunks.conv_stack import ConvStack
from agegender.tasks.confidence import ClassCalibration
from agegender.tasks.intervals import IntervalCalibration

AGE = {"name": "mae"}
HAIR = {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]}


def small_net(**options: Any) -> MultiTaskNet:
    settings: dict[str, Any] = {"image_size": 16, "in_channels": 1, "age": AGE, "channels": [4, 8], "head_units": [8]}
    return MultiTaskNet(**network_settings(**settings | options))


@pytest.mark.parametrize("faces", [1, 5])
def test_network_outputs_one_head_for_each_task(faces: int) -> None:
    net = small_net(tasks={"hair": HAIR}).eval()
    outputs = net(torch.randint(0, 256, (faces, 1, 16, 16), dtype=torch.uint8))
    assert {name: raw.shape for name, raw in outputs.items()} == {
        "age": (faces, 1),
        "gender": (faces, 1),
        "hair": (faces, 3),
    }
    columns = [column for info in net.infos for column in info.columns]
    assert columns == [
        "age",
        "age_std",
        "age_low",
        "age_high",
        "p_female",
        "p_hair_black",
        "p_hair_brown",
        "p_hair_red",
    ]
    predicted = net.predict(outputs)
    assert list(predicted) == columns and {value.shape for value in predicted.values()} == {(faces,)}


def test_network_of_one_task_has_one_head() -> None:
    (outputs,) = (small_net(age=None, tasks={"hair": HAIR}).eval()(torch.rand(2, 1, 16, 16)),)
    assert list(outputs) == ["hair"]


def test_network_gives_equal_outputs_for_bytes_and_floats() -> None:
    net = small_net().eval()
    pixels = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    first, second = net(pixels), net(pixels.float() / 255)
    assert all(torch.equal(first[name], second[name]) for name in ("age", "gender"))


def test_normalization_is_part_of_the_network_and_its_state() -> None:
    net = small_net(in_channels=3, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2.0]).eval()
    seen: list[torch.Tensor] = []
    net.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(torch.full((1, 3, 16, 16), 0.6))
    assert torch.allclose(seen[0][0, :, 0, 0], torch.tensor([1.0, 1.6, 0.15]))
    assert {"mean", "std"} <= set(net.state_dict())


@pytest.mark.parametrize("name", ["mean", "std"])
def test_normalization_of_a_wrong_number_of_channels_is_refused(name: str) -> None:
    with pytest.raises(AgeGenderError, match=rf"model\.{name}=.* needs 1 value or 3, one per color channel"):
        small_net(in_channels=3, **{name: [0.5, 0.5]})


def test_default_network_has_the_classic_layers() -> None:
    net = MultiTaskNet(128, 1, **network_settings(AGE))
    trunk = 320 + 18_496 + 73_856 + 295_168  # 3x3 filters and biases of 1 -> 32 -> 64 -> 128 -> 256
    head = 9216 * 256 + 256 + 257  # 6 x 6 x 256 features -> 256 -> 1
    assert sum(weight.numel() for weight in net.parameters()) == trunk + 2 * head
    assert [layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)] == [0.0, 0.4, 0.4]


def test_shared_units_stand_between_trunk_and_both_heads() -> None:
    net = small_net(shared_units=[6, 5], head_units=[])
    assert [layer.out_features for layer in net.shared if isinstance(layer, nn.Linear)] == [6, 5]
    assert [head[0].in_features for head in net.heads.values()] == [5, 5]  # type: ignore[index]
    net.eval()(torch.zeros(2, 1, 16, 16))


def test_heads_share_the_trunk_only() -> None:
    net = small_net().eval()
    ages = net(torch.rand(2, 1, 16, 16))["age"].sum()
    gradients = torch.autograd.grad(ages, list(net.parameters()), allow_unused=True)
    reached = {
        name for (name, _), gradient in zip(net.named_parameters(), gradients, strict=True) if gradient is not None
    }
    assert reached == {name for name, _ in net.named_parameters() if not name.startswith("heads.gender")}


def test_network_weights_are_decided_by_the_seed() -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(nn.utils.parameters_to_vector(small_net().parameters()))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("scheme", "deviation"),
    [
        ("xavier_uniform", math.sqrt(2 / (400 + 300))),
        ("kaiming_uniform", math.sqrt(2 / 400)),
        ("kaiming_normal", math.sqrt(2 / 400)),
    ],
)
def test_init_weights_sets_the_published_deviation_and_zero_biases(scheme: Any, deviation: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(400, 300)
    init_weights(layer, scheme)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.01)
    assert not layer.bias.any()
    uniform = layer.weight.abs().max().item() <= deviation * math.sqrt(3) + 1e-6
    assert uniform == scheme.endswith("uniform")


def test_init_weights_reaches_convolutions_and_heads() -> None:
    net = small_net(weight_init="kaiming_normal")
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6 and not any(layer.bias is not None and layer.bias.any() for layer in layers)


def test_init_weights_pytorch_changes_nothing() -> None:
    layer = nn.Linear(20, 10)
    before = layer.weight.clone(), layer.bias.clone()
    init_weights(layer, "pytorch")
    assert torch.equal(layer.weight, before[0]) and torch.equal(layer.bias, before[1])


def test_mlp_returns_its_number_of_outputs() -> None:
    layers, outputs = mlp(7, [5, 3], 0.1)
    assert outputs == 3 and layers(torch.zeros(2, 7)).shape == (2, 3)
    empty, outputs = mlp(7, [], 0.1)
    assert outputs == 7 and torch.equal(empty(torch.ones(2, 7)), torch.ones(2, 7))


@pytest.mark.parametrize("name", sorted(AGES))
def test_outputs_losses_and_predictions_are_float32_under_autocast(name: str) -> None:
    net = small_net(age={"name": name}).eval()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(torch.rand(2, 1, 16, 16))
        predicted = net.predict(outputs)
        losses = [task.masked_loss(outputs[each], torch.tensor([1.0, 0.0]))[0] for each, task in net.each_task()]
    found = {value.dtype for value in (*outputs.values(), *predicted.values(), *losses)}
    assert found == {torch.float32}
    assert torch.equal(predicted["age"], net.predict(outputs)["age"])  # to the last bit what it is outside


@pytest.mark.parametrize("age", [64.0, 80.0, 100.0, 113.0])
def test_old_ages_keep_steps_below_half_a_year_under_autocast(age: float) -> None:
    net = small_net(head_units=[]).eval()
    last = net.heads["age"][0]  # type: ignore[index]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    years = []
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        for target in torch.arange(age, age + 2, 0.1).tolist():
            nn.init.constant_(last.bias, (target - 33) / 20)
            years.append(net.predict(net(torch.zeros(1, 1, 16, 16)))["age"].item())
    # decoded in bfloat16, the steps would be of half a year
    assert max(after - before for before, after in itertools.pairwise(years)) < 0.5
    assert years[0] == pytest.approx(age, abs=0.25)


@pytest.mark.parametrize("name", ["feature_dropout", "dropout"])
def test_dropout_settings_apply_to_their_own_layers(name: str) -> None:
    net = small_net(**{"dropout": 0.0, name: 0.75}).train()
    seen: dict[str, torch.Tensor] = {}
    head: Any = net.heads["age"]
    head[0].register_forward_pre_hook(lambda module, inputs: seen.update(features=inputs[0]))
    head[-1].register_forward_pre_hook(lambda module, inputs: seen.update(units=inputs[0]))
    assert isinstance(net.trunk, ConvStack)
    nn.init.constant_(net.trunk.stages[0].bias, 1.0)  # type: ignore[arg-type]
    nn.init.constant_(net.trunk.stages[3].bias, 1.0)  # type: ignore[arg-type]
    nn.init.constant_(head[0].bias, 5.0)
    torch.manual_seed(0)
    net(torch.rand(64, 1, 16, 16))
    dropped = {place: (values == 0).float().mean().item() for place, values in seen.items()}
    target, other = ("features", "units") if name == "feature_dropout" else ("units", "features")
    assert dropped[target] > 0.7 and dropped[other] < 0.5
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(net.eval()(images)["age"], net(images)["age"])  # an answer drops nothing


@pytest.mark.parametrize("name", ["feature_dropout", "dropout"])
def test_dropout_of_one_is_refused(name: str) -> None:
    with pytest.raises(AgeGenderError, match=rf"model\.{name}=1\.0 must be at least 0 and below 1"):
        small_net(**{name: 1.0})


def test_sigmoid_output_equals_the_logit_in_probability_and_loss() -> None:
    logit, sigmoid = small_net().eval(), small_net(gender_output="sigmoid").eval()
    sigmoid.load_state_dict(logit.state_dict())
    images, gender = torch.rand(6, 1, 16, 16), torch.tensor([0.0, 1.0] * 3)
    first, second = logit(images), sigmoid(images)
    assert torch.allclose(second["gender"], first["gender"].sigmoid())  # the network itself ends in a probability
    assert torch.allclose(logit.predict(first)["p_female"], sigmoid.predict(second)["p_female"])
    losses = [
        dict(net.each_task())["gender"].loss(raw["gender"], gender) for net, raw in ((logit, first), (sigmoid, second))
    ]
    assert torch.allclose(losses[0], losses[1])


def test_sigmoid_output_has_gradients_under_autocast() -> None:
    net = small_net(gender_output="sigmoid")
    with torch.autocast("cpu", torch.bfloat16):
        raw = net(torch.rand(4, 1, 16, 16))["gender"]
        loss, _ = dict(net.each_task())["gender"].masked_loss(raw, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = net.get_parameter("heads.gender.3.weight").grad
    assert loss.dtype == torch.float32 and isinstance(gradient, torch.Tensor) and gradient.abs().sum() > 0


def test_uncalibrated_network_has_the_outputs_std_and_no_interval() -> None:
    images = torch.rand(3, 1, 16, 16)
    single, whole = small_net().eval(), small_net(age={"name": "dldl", "max_age": 100}).eval()
    assert single.predict(single(images))["age_std"].isnan().all()  # one number implies none
    raw = whole(images)
    assert torch.equal(whole.predict(raw)["age_std"], whole.tasks["age"].spread(raw["age"]))  # type: ignore[operator]
    for net in (single, whole):
        predicted = net.predict(net(images))
        assert predicted["age_low"].isnan().all() and predicted["age_high"].isnan().all()


def test_calibration_scales_std_and_confidence_only() -> None:
    images, options = torch.rand(8, 1, 16, 16), {"age": {"name": "dldl", "max_age": 100}}
    plain, net = small_net(**options).eval(), small_net(**options).eval()
    tasks = dict(net.each_task())
    tasks["age"].calibration = IntervalCalibration([0.0], [3.0], [-1.0] * 121, [1.0] * 121, [0.0, 120.0])
    tasks["gender"].calibration = ClassCalibration(temperature=2.0, min_confidence=0.5, answered=1.0)
    state = net.state_dict()
    net.load_state_dict(plain.state_dict() | {key: state[key] for key in state if key.endswith("_extra_state")})
    outputs = net(images)
    before, after = plain.predict(outputs), net.predict(outputs)
    torch.testing.assert_close(after["age_std"], 3 * before["age_std"])
    assert torch.equal(after["age"], before["age"]) and (after["age_low"] <= after["age_high"]).all()
    assert torch.equal(after["p_female"] > 0.5, before["p_female"] > 0.5)
    torch.testing.assert_close(after["p_female"].logit(), before["p_female"].logit() / 2)


@pytest.mark.parametrize("output", ["logit", "sigmoid"])
def test_tta_gives_equal_outputs_for_a_face_and_its_mirror_image(output: str) -> None:
    net = small_net(gender_output=output).eval()
    images = torch.rand(4, 1, 16, 16)
    straight, mirrored = net.forward_tta(images), net.forward_tta(images.flip(3))
    torch.testing.assert_close(straight, mirrored)
    assert not torch.equal(straight["age"], net(images)["age"])
