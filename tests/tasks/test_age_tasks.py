"""Tasks of ages: target, loss, value and spread against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.nodes import AGES, age_task
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agegender.errors import AgeGenderError
from agegender.models.layers import init_weights
from agegender.tasks.age_distribution import BinnedAge, Coral, LabelDistribution
from agegender.tasks.number import NumberTask

REGRESSIONS = ("huber", "mae", "mse")
ages = st.floats(0, 120, width=32)


def logits(*shares: float) -> torch.Tensor:
    """One row of logits whose softmax is the shares."""
    return torch.tensor([shares]).log()


def mean_loss(task: NumberTask, raw: torch.Tensor, age: torch.Tensor) -> torch.Tensor:
    """The mean loss of faces that all have a label."""
    return task.masked_loss(raw, age)[0]


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regression_value_matches_hand_computation(name: str) -> None:
    raw = torch.tensor([[0.0], [1.0], [-0.5], [-2.0], [5.0]])
    assert age_task(name).value(raw).tolist() == [33.0, 53.0, 23.0, 0.0, 120.0]  # -7 and 133 years are beyond limits


def test_mae_loss_matches_hand_computation() -> None:
    raw, age = torch.tensor([[0.0], [1.0]]), torch.tensor([43.0, 33.0])  # 10 and 20 years off, in units of 20
    assert mean_loss(age_task("mae"), raw, age).item() == pytest.approx((0.5 + 1.0) / 2)


def test_mse_loss_matches_hand_computation() -> None:
    raw, age = torch.tensor([[0.0], [1.0]]), torch.tensor([43.0, 33.0])
    assert mean_loss(age_task("mse"), raw, age).item() == pytest.approx((0.25 + 1.0) / 2)
    in_years = torch.tensor([[10.0], [0.0]])
    plain = age_task("mse", scale=1.0)
    assert mean_loss(plain, in_years, torch.tensor([33.0, 35.0])).item() == pytest.approx((100 + 4) / 2)


def test_huber_loss_matches_hand_computation() -> None:
    task, truth = age_task("huber", delta=5.0), torch.tensor([33.0])
    near, far = torch.tensor([[0.1]]), torch.tensor([[1.0]])  # 2 and 20 years off
    # Huber: e^2 / 2 below delta, delta (|e| - delta / 2) above; divided by delta, in units of 20 years
    assert mean_loss(task, near, truth).item() == pytest.approx((2**2 / 2) / 5 / 20)
    assert mean_loss(task, far, truth).item() == pytest.approx((20 - 2.5) / 20)


def test_classes_match_hand_computation() -> None:
    task = BinnedAge(bin_width=10, max_age=30)  # 0-9, 10-19, 20-29, 30 and more, centered at 4.5, 14.5, 24.5, 34.5
    assert task.num_outputs == 4
    assert task.bin_of(torch.tensor([0.0, 9.0, 10.0, 29.0, 30.0, 116.0])).tolist() == [0, 0, 1, 2, 3, 3]
    raw = logits(0.5, 0.25, 0.25, 1e-30)
    assert mean_loss(task, raw, torch.tensor([12.0])).item() == pytest.approx(math.log(4))
    mean = 0.5 * 4.5 + 0.25 * 14.5 + 0.25 * 24.5
    assert task.value(raw).item() == pytest.approx(mean)
    between = 0.5 * (4.5 - mean) ** 2 + 0.25 * (14.5 - mean) ** 2 + 0.25 * (24.5 - mean) ** 2
    within = sum((year - 4.5) ** 2 for year in range(10)) / 10
    assert task.spread(raw).item() == pytest.approx(math.sqrt(between + within), rel=1e-5)


def test_class_center_is_the_mean_of_its_years() -> None:
    for width in (1, 3, 5, 10):
        task = BinnedAge(width, 30)
        years = torch.arange(30.0)
        centers = task.centers(years)[task.bin_of(years)]
        for label in range(30 // width):
            inside = years[task.bin_of(years) == label]
            assert len(inside) == width and inside.mean() == centers[task.bin_of(years) == label][0]


def test_spread_of_a_certain_class_comes_from_its_width_only() -> None:
    sure = torch.full((1, 4), -1e4)
    sure[0, 2] = 0.0
    assert BinnedAge(1, 3).spread(sure).item() == 0.0
    assert BinnedAge(10, 30).spread(sure).item() == pytest.approx(math.sqrt(99 / 12))


def test_dldl_target_and_loss_match_hand_computation() -> None:
    task = LabelDistribution(sigma=1.0, max_age=3)
    weights = [math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-2.0)]  # the normal density at distances 1, 0, 1, 2
    wanted = [weight / sum(weights) for weight in weights]
    assert task.target(torch.tensor([1.0]))[0].tolist() == pytest.approx(wanted)
    raw = logits(0.1, 0.2, 0.3, 0.4)
    divergence = sum(p * math.log(p / q) for p, q in zip(wanted, (0.1, 0.2, 0.3, 0.4), strict=True))
    assert mean_loss(task, raw, torch.tensor([1.0])).item() == pytest.approx(divergence, rel=1e-5)
    assert mean_loss(task, torch.tensor([wanted]).log(), torch.tensor([1.0])).item() == pytest.approx(0, abs=1e-6)


def test_dldl_decode_spread_and_expectation_loss_match_hand_computation() -> None:
    raw, truth = logits(0.1, 0.2, 0.3, 0.4), torch.tensor([1.0])
    plain, second = LabelDistribution(1.0, 3), LabelDistribution(1.0, 3, expectation=0.5)
    mean = 0.2 + 2 * 0.3 + 3 * 0.4
    assert plain.value(raw).item() == pytest.approx(mean)
    variance = sum(p * (year - mean) ** 2 for year, p in enumerate((0.1, 0.2, 0.3, 0.4)))
    assert plain.spread(raw).item() == pytest.approx(math.sqrt(variance), rel=1e-5)
    extra = mean_loss(second, raw, truth) - mean_loss(plain, raw, truth)
    assert extra.item() == pytest.approx(0.5 * abs(mean - 1), rel=1e-5)


def test_coral_matches_hand_computation() -> None:
    task = Coral(max_age=3)
    above = torch.tensor([[0.9, 0.6, 0.2]])  # P(age > 0), P(age > 1), P(age > 2)
    raw = above.logit()
    assert task.value(raw).item() == 2  # two years are more likely passed than not
    wanted = -(math.log(0.9) + math.log(1 - 0.6) + math.log(1 - 0.2)) / 3  # of age 1: above 0, not above 1 and 2
    assert mean_loss(task, raw, torch.tensor([1.0])).item() == pytest.approx(wanted, rel=1e-5)
    shares = (0.1, 0.3, 0.4, 0.2)  # P(age = 0), ... as differences of the above
    mean = sum(year * p for year, p in enumerate(shares))
    variance = sum(p * (year - mean) ** 2 for year, p in enumerate(shares))
    assert task.spread(raw).item() == pytest.approx(math.sqrt(variance), rel=1e-5)


def test_coral_outputs_share_weights_and_start_in_order() -> None:
    layer = Coral(max_age=5).head(7)
    init_weights(layer, "kaiming_uniform")
    answers = layer(torch.randn(3, 7))
    steps = answers.diff(dim=1)
    assert answers.shape == (3, 5)
    assert torch.allclose(steps, steps[:1].expand(3, -1), atol=1e-6) and (steps < 0).all()
    assert sum(weight.numel() for weight in layer.parameters()) == 7 + 5


@given(raw=st.lists(st.floats(-20, 20), min_size=4, max_size=4))
def test_coral_spread_is_finite_for_inconsistent_ranks(raw: list[float]) -> None:
    assert 0 <= Coral(max_age=4).spread(torch.tensor([raw])).item() <= 4


def test_regression_output_below_age_zero_has_a_gradient() -> None:
    raw = torch.tensor([[-3.0]], requires_grad=True)  # decoded, it is clamped; the loss must not be
    (gradient,) = torch.autograd.grad(mean_loss(age_task("mae"), raw, torch.tensor([30.0])), raw)
    assert gradient.item() < 0


@pytest.mark.parametrize("name", REGRESSIONS)
def test_relu_output_equals_linear_above_age_zero_and_is_clamped_below(name: str) -> None:
    linear, relu = (age_task(name, scale=20.0, offset=33.0, output=output) for output in ("linear", "relu"))
    truth = torch.tensor([30.0])
    for answer in (-1.0, 0.0, 2.0):
        raw = torch.tensor([[answer]])
        assert mean_loss(relu, raw, truth) == mean_loss(linear, raw, truth)
    below = torch.tensor([[-3.0]], requires_grad=True)  # -27 years
    loss = mean_loss(relu, below, truth)
    assert loss.item() == pytest.approx(mean_loss(linear, torch.tensor([[-33 / 20]]), truth).item())
    assert torch.autograd.grad(loss, below)[0].item() == 0


def test_coral_spread_is_exact_for_old_ages() -> None:
    raw = 4 * (90.0 - torch.arange(120)).unsqueeze(0) + 1
    assert Coral().spread(raw).item() == pytest.approx(Coral().spread(raw.double()).item(), rel=1e-5)


@pytest.mark.parametrize("name", [*REGRESSIONS, "coral"])
def test_default_scale_balances_age_and_gender_loss_of_an_untrained_model(name: str) -> None:
    ages = torch.tensor([10.0, 20.0, 26.0, 26.0, 30.0, 35.0, 45.0, 60.0, 75.0])  # roughly UTKFace's spread
    task = age_task(name)
    nothing = task.head(3)
    init_weights(nothing, "xavier_uniform")
    assert 0.4 < mean_loss(task, nothing(torch.zeros(len(ages), 3)), ages).item() < 1.4  # even odds for gender: 0.69


@pytest.mark.parametrize("name", ["classes", "dldl"])
def test_distribution_loss_starts_at_most_at_the_log_of_its_outputs(name: str) -> None:
    task = age_task(name)
    loss = mean_loss(task, torch.zeros(2, task.num_outputs), torch.tensor([20.0, 50.0])).item()
    assert 2 < loss <= math.log(task.num_outputs) + 1e-4


@pytest.mark.parametrize("name", REGRESSIONS)
@settings(max_examples=25)
@given(age=ages, scale=st.floats(0.5, 100, width=32), offset=st.floats(0, 100, width=32))
def test_regression_output_of_zero_loss_has_the_age_as_value(
    name: str, age: float, scale: float, offset: float
) -> None:
    task = age_task(name, scale=scale, offset=offset)
    raw = torch.tensor([[(age - offset) / scale]])
    assert mean_loss(task, raw, torch.tensor([age])).item() == pytest.approx(0, abs=1e-5)
    assert task.value(raw).item() == pytest.approx(age, abs=1e-3)


@pytest.mark.parametrize("name", REGRESSIONS)
@settings(max_examples=25)
@given(age=st.floats(0, 120), error=st.floats(0.5, 50), further=st.floats(0.5, 50))
def test_regression_loss_increases_with_the_error(name: str, age: float, error: float, further: float) -> None:
    task, truth = age_task(name), torch.tensor([age])
    losses = [
        mean_loss(task, (truth + error_ - 33).div(20).unsqueeze(1), truth).item() for error_ in (error, error + further)
    ]
    assert losses[0] < losses[1]


def best(task: NumberTask, age: float) -> torch.Tensor:
    """The outputs that one face of this age would be learned to, by plain gradient descent from zero."""
    raw = torch.zeros(1, task.num_outputs, requires_grad=True)
    truth = torch.tensor([age])
    optimizer = torch.optim.LBFGS([raw], lr=1.0, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = mean_loss(task, raw, truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return raw.detach()


@pytest.mark.parametrize(
    ("task", "within"),
    [
        (age_task("mse"), 0.1),
        (age_task("huber"), 0.1),
        (BinnedAge(5, 100), 2.1),
        (LabelDistribution(), 0.1),
        (Coral(), 0.5),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
@pytest.mark.parametrize("age", [20.0, 64.0])
def test_minimized_loss_decodes_to_the_age(task: NumberTask, within: float, age: float) -> None:
    assert task.value(best(task, age)).item() == pytest.approx(age, abs=within)


@pytest.mark.parametrize("name", sorted(AGES))
def test_decode_and_spread_keep_the_batch_order(name: str) -> None:
    task = age_task(name)
    raw = torch.randn(7, task.num_outputs, generator=torch.Generator().manual_seed(0))
    whole, spread = task.value(raw), task.spread(raw)
    assert whole.shape == (7,)
    assert whole.tolist() == pytest.approx([task.value(raw[i : i + 1]).item() for i in range(7)], rel=1e-5)
    if spread is None:
        assert name in REGRESSIONS
    else:
        assert spread.shape == (7,) and (spread > 0).all()


@pytest.mark.parametrize("name", sorted(AGES))
@settings(max_examples=20)
@given(age=ages)
def test_loss_and_gradient_are_finite_for_every_age(name: str, age: float) -> None:
    task = age_task(name)
    raw = torch.zeros(1, task.num_outputs, requires_grad=True)
    loss = mean_loss(task, raw, torch.tensor([age]))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, raw)[0]).all()


@pytest.mark.parametrize("name", sorted(AGES))
def test_head_has_the_tasks_number_of_outputs(name: str) -> None:
    task = age_task(name)
    layer = task.head(6)
    assert isinstance(layer, nn.Module) and layer(torch.zeros(2, 6)).shape == (2, task.num_outputs)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("mae", {"scale": 0.0}, "tasks.age.scale=0.0 must be above zero"),
        ("huber", {"delta": 0.0}, "tasks.age.delta=0.0 must be above zero"),
        ("classes", {"bin_width": 0}, "tasks.age.bin_width=0 must be at least 1 year"),
        ("classes", {"bin_width": 7}, "tasks.age.max_age=100 must be a multiple of bin_width=7"),
        ("dldl", {"sigma": 0.0}, "tasks.age.sigma=0.0 must be above zero"),
        ("dldl", {"max_age": 0}, "tasks.age.max_age=0 must be at least 1 year"),
        ("dldl", {"expectation": -1.0}, "tasks.age.expectation=-1.0 must be at least 0"),
        ("coral", {"max_age": 0}, "tasks.age.max_age=0 must be at least 1 year"),
    ],
)
def test_age_task_refuses_settings_out_of_range_by_name(name: str, wrong: dict[str, float], message: str) -> None:
    with pytest.raises(AgeGenderError, match=f"^{message}"):
        age_task(name, **wrong)


def test_bin_accuracy_is_measured_for_classes_only() -> None:
    assert [name for name in AGES if "class_acc" in age_task(name).metrics()] == ["classes"]


def test_median_decoding_matches_hand_computation() -> None:
    shares = torch.tensor([[0.2, 0.5, 0.3, 0.0], [0.0, 0.0, 0.0, 1.0], [0.5, 0.0, 0.0, 0.5]])
    task = LabelDistribution(max_age=3, decoding="median")
    # 0.2 below 0.5, and 0.3 of the next 0.5 after it: at 0.5 + 0.6; a single age is its own median
    assert task.value(shares.log()).tolist() == pytest.approx([1.1, 3.0, 0.5])
    assert LabelDistribution(max_age=3).value(shares.log()).tolist() == pytest.approx([1.1, 3.0, 1.5])
    wide = BinnedAge(bin_width=5, max_age=15, decoding="median")  # classes around 2, 7, 12 and 17
    assert wide.value(shares.log()).tolist() == pytest.approx([-0.5 + 5 * 1.6, 17.0, 4.5])
    assert torch.equal(wide.spread(shares.log()), BinnedAge(bin_width=5, max_age=15).spread(shares.log()))


@pytest.mark.parametrize("make", [LabelDistribution, BinnedAge])
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 30))
def test_median_decoding_minimizes_the_expected_absolute_error(
    make: type[LabelDistribution | BinnedAge], seed: int, scale: float
) -> None:
    task = make(max_age=60, decoding="median")
    raw = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (1, task.num_outputs)))
    centers, shares = task.centers(raw), raw.softmax(1)[0]
    costs = (shares * (centers[:, None] - centers).abs().T).sum(1)  # of answering each center
    half = task.bin_width / 2  # the median lies within the best output's years
    assert (task.value(raw) - centers[costs.argmin()]).abs().item() <= half + 1e-6
