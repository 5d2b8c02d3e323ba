"""An age becomes a target, a loss and an age again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agegender.models.age import AGE_CODINGS, MeanAbsoluteError, MeanSquaredError


def test_decoding_by_hand() -> None:
    raw = torch.tensor([[0.0], [1.0], [-0.5], [-2.0]])
    assert MeanAbsoluteError(20.0, 33.0).decode(raw).tolist() == [33.0, 53.0, 23.0, 0.0]  # -7 years is not an age


def test_mae_loss_by_hand() -> None:
    raw, age = torch.tensor([[0.0], [1.0]]), torch.tensor([43.0, 33.0])  # 10 and 20 years off, in units of 20
    assert MeanAbsoluteError(20.0, 33.0).loss(raw, age).item() == pytest.approx((0.5 + 1.0) / 2)


def test_mse_loss_by_hand() -> None:
    raw, age = torch.tensor([[0.0], [1.0]]), torch.tensor([43.0, 33.0])
    assert MeanSquaredError(20.0, 33.0).loss(raw, age).item() == pytest.approx((0.25 + 1.0) / 2)


def test_an_output_below_age_zero_still_learns() -> None:
    raw = torch.tensor([[-3.0]], requires_grad=True)  # decoded, it is clamped; the loss must not be
    (gradient,) = torch.autograd.grad(MeanAbsoluteError().loss(raw, torch.tensor([30.0])), raw)
    assert gradient.item() < 0


def test_the_default_unit_keeps_age_and_gender_level_for_a_model_that_knows_nothing() -> None:
    ages = torch.tensor([10.0, 20.0, 26.0, 26.0, 30.0, 35.0, 45.0, 60.0, 75.0])  # roughly UTKFace's spread
    nothing = torch.zeros(len(ages), 1)
    for coding in AGE_CODINGS.values():
        assert 0.4 < coding().loss(nothing, ages).item() < 1.4  # even odds for gender cost 0.69


@pytest.mark.parametrize("name", sorted(AGE_CODINGS))
@given(
    age=st.floats(0, 120, width=32),
    scale=st.floats(0.5, 100, width=32),
    offset=st.floats(0, 100, width=32),
)
def test_the_output_without_loss_decodes_to_the_age(name: str, age: float, scale: float, offset: float) -> None:
    coding = AGE_CODINGS[name](scale=scale, offset=offset)  # type: ignore[call-arg]
    raw = torch.tensor([[(age - offset) / scale]])
    assert coding.loss(raw, torch.tensor([age])).item() == pytest.approx(0, abs=1e-5)
    assert coding.decode(raw).item() == pytest.approx(age, abs=1e-3)


@pytest.mark.parametrize("name", sorted(AGE_CODINGS))
@given(age=st.floats(0, 120), error=st.floats(0.5, 50), further=st.floats(0.5, 50))
def test_a_larger_error_costs_more(name: str, age: float, error: float, further: float) -> None:
    coding, truth = AGE_CODINGS[name](), torch.tensor([age])
    losses = [
        coding.loss((truth + error_ - 33).div(20).unsqueeze(1), truth).item() for error_ in (error, error + further)
    ]
    assert losses[0] < losses[1]


@pytest.mark.parametrize("name", sorted(AGE_CODINGS))
def test_a_batch_keeps_its_order(name: str) -> None:
    coding = AGE_CODINGS[name]()
    raw = torch.linspace(-1, 3, 7).unsqueeze(1)
    assert raw.shape[1] == coding.outputs
    whole = coding.decode(raw)
    assert whole.shape == (7,)
    assert whole.tolist() == [coding.decode(raw[i : i + 1]).item() for i in range(7)]
