"""The training step: loss, schedule, precision and learning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from helpers.nodes import AGES, age_node, gender_node, target, task_nodes, trunk_node
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.data import DataLoader

from agegender.data.augmentation.mixing import Mixing, Partners
from agegender.data.loading.dataset import Batch, step_seed
from agegender.models.trunks import conv_stack
from agegender.training.module import AgeGenderModule
from agegender.training.optim import WarmupCosine, warmup_cosine

NETWORK = {
    "image_size": 16,
    "in_channels": 1,
    "tasks": task_nodes(),
    "trunk": trunk_node(channels=[8, 16]),
    "head_units": [32],
    "dropout": 0.0,
}
# A bare Trainer warns of settings that train.py sets: no validation, no worker processes.
pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:.*does not have many workers", "ignore:The number of training"
)
OPTIM = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 3e-3}, "scheduler": None}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these are slower with a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def module_of(network: dict[str, Any] | None = None, **options: Any) -> AgeGenderModule:
    return AgeGenderModule(NETWORK | (network or {}), **{"optim": OPTIM} | options)


def some_faces(count: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(
        image=torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8, generator=generator),
        labels={
            "age": torch.randint(1, 100, (count,), generator=generator).float(),
            "gender": (torch.arange(count) % 2).float(),
        },
        row=torch.arange(count),
    )


class ConstantHead(torch.nn.Module):
    """A head with constant outputs."""

    def __init__(self, answers: list[float]):
        super().__init__()
        self.answers = torch.tensor(answers).unsqueeze(1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.answers


def batches_of(*batches: Batch) -> DataLoader[Batch]:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def quiet_trainer(**options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**settings | options)


def measured_losses(module: AgeGenderModule, batch: Batch) -> dict[str, float]:
    returned = module.training_step(batch, 0).item()
    return {name: value.item() for name, value in module.train_metrics.compute().items()} | {"returned": returned}


@pytest.mark.parametrize(("age_weight", "gender_weight"), [(1.0, 1.0), (0.5, 3.0), (0.0, 1.0)])
def test_loss_equals_the_hand_computed_weighted_sum(age_weight: float, gender_weight: float) -> None:
    tasks = {"age": age_node("mae", weight=age_weight), "gender": gender_node(weight=gender_weight)}
    module = module_of({"tasks": tasks})
    module.network.heads["age"] = ConstantHead([0.0, 1.0])  # 33 and 53 years
    module.network.heads["gender"] = ConstantHead([0.0, math.log(3)])  # p_female 1/2 and 3/4
    batch = some_faces(2)
    batch["labels"] = {"age": torch.tensor([43.0, 53.0]), "gender": torch.tensor([1.0, 0.0])}
    losses = measured_losses(module, batch)
    age_loss = (10 / 20 + 0) / 2
    gender_loss = (-math.log(1 / 2) - math.log(1 / 4)) / 2
    assert losses["train/age_loss"] == pytest.approx(age_loss)
    assert losses["train/gender_loss"] == pytest.approx(gender_loss)
    assert losses["train/loss"] == pytest.approx(age_weight * age_loss + gender_weight * gender_loss)
    assert losses["returned"] == losses["train/loss"]


def take_rows(batch: Batch, rows: list[int]) -> Batch:
    """Returns some rows of a batch, with missing labels set to zero."""
    labels = {name: values[rows].nan_to_num() for name, values in batch["labels"].items()}
    return Batch(image=batch["image"][rows], labels=labels, row=batch["row"][rows])


def seeded_module(network: dict[str, Any] | None = None, **options: Any) -> AgeGenderModule:
    pl.seed_everything(0, verbose=False)
    return module_of(network, **options)


def gradients_of(module: AgeGenderModule, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("gender_output", ["logit", "sigmoid"])
@pytest.mark.parametrize("age", AGES)
def test_losses_with_missing_labels_equal_those_of_the_labeled_faces(age: str, gender_output: str) -> None:
    network = {"tasks": task_nodes(age, gender={"output": gender_output})}
    module, batch = seeded_module(network), some_faces()
    batch["labels"]["age"][[1, 5, 6]] = batch["labels"]["gender"][[0, 6, 7, 8]] = torch.nan
    aged, gendered = [0, 2, 3, 4, 7, 8, 9, 10, 11], [1, 2, 3, 4, 5, 9, 10, 11]
    found, whole = measured_losses(module, batch), module_of(network)
    whole.load_state_dict(module.state_dict())
    assert found["train/age_loss"] == pytest.approx(measured_losses(whole, take_rows(batch, aged))["train/age_loss"])
    gender_loss = measured_losses(whole, take_rows(batch, gendered))["train/gender_loss"]
    assert found["train/gender_loss"] == pytest.approx(gender_loss)
    assert found["train/loss"] == pytest.approx(found["train/age_loss"] + gender_loss) == found["returned"]


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("label", ["age", "gender"])
def test_batch_without_labels_of_a_task_gives_its_head_zero_gradients(age: str, label: str) -> None:
    module, batch = seeded_module({"tasks": task_nodes(age)}), some_faces()
    batch["labels"][label].fill_(torch.nan)
    losses = module.training_step(batch, 0)
    gradients = gradients_of(module, losses)
    heads = {name: {n: g for n, g in gradients.items() if f"heads.{name}." in n} for name in ("age", "gender")}
    assert heads["age"] and heads["gender"]  # both have a gradient, of which one is zero
    assert all((gradient == 0).all() for gradient in heads.pop(label).values())
    (other,) = heads.values()
    assert any((gradient != 0).any() for gradient in other.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    figures = module.train_metrics.compute()
    assert {name.split("/")[1] for name, value in figures.items() if value.isnan()} == {
        name for name in (name.split("/")[1] for name in figures) if name.startswith(label)
    }


def test_learned_loss_weight_of_an_unlabeled_task_has_zero_gradient() -> None:
    module, batch = seeded_module(loss={"learned": True}), some_faces()
    batch["labels"]["gender"].fill_(torch.nan)
    gradient = gradients_of(module, module.training_step(batch, 0))["balance.log_variance"]
    assert gradient[0] != 0 and gradient[1] == 0


def mixing_losses(
    module: AgeGenderModule, batch: Batch, own: float, order: list[int], monkeypatch: pytest.MonkeyPatch
) -> dict[str, float]:
    """Returns the losses of a step whose faces have these partners and this weight."""
    module.mixing = Mixing(mixup=1.0)
    monkeypatch.setattr(Mixing, "__call__", lambda self, images, seed: (images, Partners(torch.tensor(order), own)))
    monkeypatch.setattr(AgeGenderModule, "current_epoch", 0)
    return measured_losses(module, batch)


def test_mixing_loss_equals_the_hand_computed_mean_with_missing_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of()
    module.network.heads["age"] = ConstantHead([0.0, 1.0, 0.0])  # 33, 53 and 33 years
    module.network.heads["gender"] = ConstantHead([0.0, math.log(3), 0.0])  # p_female 1/2, 3/4 and 1/2
    batch = some_faces(3)
    batch["labels"] = {"age": torch.tensor([43.0, 53.0, torch.nan]), "gender": torch.tensor([1.0, 0.0, 1.0])}
    losses = mixing_losses(module, batch, 0.75, [1, 2, 0], monkeypatch)
    own_age, partner_age = (10 / 20 + 0) / 2, (20 / 20 + 10 / 20) / 2  # face 1's partner has no age
    own_gender = (math.log(2) + math.log(4) + math.log(2)) / 3
    partner_gender = (math.log(2) + math.log(4 / 3) + math.log(2)) / 3  # partners' labels: 0, 1, 1
    assert losses["train/age_loss"] == pytest.approx(0.75 * own_age + 0.25 * partner_age)
    assert losses["train/gender_loss"] == pytest.approx(0.75 * own_gender + 0.25 * partner_gender)
    assert losses["returned"] == pytest.approx(losses["train/age_loss"] + losses["train/gender_loss"])


@pytest.mark.parametrize("age", AGES)
def test_mixing_with_identical_partners_changes_no_loss(age: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, batch = seeded_module({"tasks": task_nodes(age)}), some_faces()
    batch["labels"]["age"][2] = torch.nan
    plain = measured_losses(module, batch)
    assert mixing_losses(module, batch, 0.3, list(range(12)), monkeypatch) == pytest.approx(plain, rel=1e-6)


def test_train_metrics_of_mixed_images_count_the_label_with_the_larger_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    for own, error in ((0.6, 5.0), (0.4, 15.0)):
        module, batch = module_of(), some_faces(2)
        module.network.heads["age"] = ConstantHead([0.0, 1.0])  # 33 and 53 years
        batch["labels"]["age"] = torch.tensor([38.0, 48.0])
        assert mixing_losses(module, batch, own, [1, 0], monkeypatch)["train/age_mae"] == pytest.approx(error)


def test_forward_returns_the_columns_of_all_tasks() -> None:
    module = module_of().eval()
    module.network.heads["age"] = ConstantHead([1.0, -9.0])
    module.network.heads["gender"] = ConstantHead([0.0, math.log(3)])
    columns = module(some_faces(2)["image"])
    assert list(columns) == ["age", "age_std", "age_low", "age_high", "p_female"]
    assert columns["age"].tolist() == [53.0, 0.0] and columns["age_low"].isnan().all()
    assert columns["p_female"].tolist() == pytest.approx([0.5, 0.75])


def test_task_of_its_own_label_and_two_tasks_of_one_label_train_together() -> None:
    hair = {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]}
    module, batch = seeded_module({"tasks": task_nodes() | {"bins": age_node("classes"), "hair": hair}}), some_faces()
    batch["labels"]["hair"] = torch.tensor([0.0, 1.0, 2.0, torch.nan] * 3)
    losses = measured_losses(module, batch)
    names = ("age", "gender", "bins", "hair")
    assert losses["returned"] == pytest.approx(sum(losses[f"train/{name}_loss"] for name in names))
    gradients = gradients_of(module, module.training_step(batch, 0))
    for name in names:
        assert any((gradients[key] != 0).any() for key in gradients if f"heads.{name}." in key), name


@pytest.mark.parametrize("age", ["mae", "mse"])
def test_module_overfits_one_batch(age: str) -> None:
    pl.seed_everything(0, verbose=False)
    scheduler = {"_target_": target(WarmupCosine), "interval": "step", "warmup_fraction": 0.05, "final_lr_ratio": 0.0}
    module = module_of({"tasks": task_nodes(age)}, optim=OPTIM | {"scheduler": scheduler})
    batch = some_faces()
    trainer = quiet_trainer(max_epochs=4)
    trainer.fit(module, batches_of(*[batch] * 75))
    assert trainer.callback_metrics["train/loss"].item() < 0.02  # initially about 1.5
    columns, labels = module.eval()(batch["image"]), batch["labels"]
    assert (columns["age"] - labels["age"]).abs().max().item() < 1.5
    assert ((columns["p_female"] > 0.5) == labels["gender"].bool()).all()


def test_scheduler_counts_optimizer_steps_under_gradient_accumulation() -> None:
    rates: list[float] = []

    class Spy(AgeGenderModule):
        def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
            rates.append(optimizer.param_groups[0]["lr"])

    scheduler = {"_target_": target(WarmupCosine), "interval": "step", "warmup_fraction": 0.34, "final_lr_ratio": 0.0}
    trainer = quiet_trainer(max_epochs=2, accumulate_grad_batches=4)
    trainer.fit(Spy(NETWORK, OPTIM | {"scheduler": scheduler}), batches_of(*[some_faces()] * 10))
    # an epoch's 10 batches are 3 steps of 4, 4 and 2
    assert trainer.global_step == len(rates) == 6
    assert rates == pytest.approx([3e-3 * warmup_cosine(step, 6, 0.34, 0.0) for step in range(6)])
    assert rates[:2] == [1.5e-3, 3e-3] and trainer.lr_scheduler_configs[0].scheduler.last_epoch == 6


def test_accumulated_batches_step_as_one_batch_of_their_size() -> None:
    sgd = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "scheduler": None}
    batch, weights = some_faces(), []
    halves = [take_rows(batch, list(range(start, start + 6))) for start in (0, 6)]
    for batches in ([batch], halves):
        module = seeded_module(optim=sgd)
        trainer = quiet_trainer(max_epochs=1, accumulate_grad_batches=len(batches))
        trainer.fit(module, batches_of(*batches))
        assert trainer.global_step == 1
        weights.append(torch.cat([weight.detach().flatten() for weight in module.parameters()]))
    torch.testing.assert_close(weights[0], weights[1])


def test_mixed_precision_keeps_losses_and_predictions_in_float32() -> None:
    seen: dict[str, set[torch.dtype]] = {"loss": set(), "answer": set(), "inside": set()}

    class Spy(AgeGenderModule):
        def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
            loss, _, step = self._step(batch, "train")
            seen["loss"].add(loss.dtype)
            seen["answer"] |= {value.dtype for each in step.decoded.values() for value in each.values()}
            return loss

    module = Spy(NETWORK, OPTIM)
    module.network.trunk.register_forward_hook(lambda net, inputs, output: seen["inside"].add(output.dtype))
    trainer = quiet_trainer(max_epochs=2, precision="bf16-mixed")
    trainer.fit(module, batches_of(some_faces()))
    assert seen == {"loss": {torch.float32}, "answer": {torch.float32}, "inside": {torch.bfloat16}}
    assert {weight.dtype for weight in module.parameters()} == {torch.float32}


def test_warmup_cosine_equals_hand_computed_factors() -> None:
    factors = [warmup_cosine(step, 12, warmup_fraction=1 / 3, final_lr_ratio=0.1) for step in range(13)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])  # 4 steps rise
    assert factors[4] == pytest.approx(1.0)
    assert factors[8] == pytest.approx(0.55)  # half-way through the cosine: the mean of 1 and 0.1
    assert factors[6] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert factors[12] == pytest.approx(0.1)


@given(
    steps=st.integers(1, 5000),
    warmup_fraction=st.floats(0, 1),
    final_lr_ratio=st.floats(0, 1),
    place=st.floats(0, 1.5),
)
def test_warmup_cosine_rises_then_falls_within_its_bounds(
    steps: int, warmup_fraction: float, final_lr_ratio: float, place: float
) -> None:
    step = int(place * steps)
    factor = warmup_cosine(step, steps, warmup_fraction, final_lr_ratio)
    following = warmup_cosine(step + 1, steps, warmup_fraction, final_lr_ratio)
    assert 0 < factor <= 1 + 1e-9 or factor == final_lr_ratio
    if step + 1 < max(1, round(warmup_fraction * steps)):
        assert following > factor
    else:
        assert final_lr_ratio - 1e-9 <= following <= max(factor, following) and (
            step == 0 or following <= factor + 1e-9
        )


def test_warmup_cosine_steps_with_every_batch() -> None:
    scheduler = {"_target_": target(WarmupCosine), "interval": "step", "warmup_fraction": 0.25, "final_lr_ratio": 0.1}
    module = module_of(optim=OPTIM | {"scheduler": scheduler})
    rates: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"] / 3e-3)

    quiet_trainer(max_epochs=2, callbacks=[Watch()]).fit(module, batches_of(*[some_faces()] * 4))
    assert rates == pytest.approx([warmup_cosine(step, 8, 0.25, 0.1) for step in range(8)])


def test_hyperparameters_are_plain_values() -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            assert type(value) is dict
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)
        else:
            assert type(value) in (str, int, float, bool, type(None)), value

    module = module_of(split={"fingerprint": "abc"}, seed=3)
    assert set(module.hparams) == {"network", "optim", "loss", "split", "seed", "tta"}
    check(dict(module.hparams))


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99), st.sampled_from(["order", "step"])),
        unique=True,
        min_size=2,
        max_size=20,
    )
)
def test_step_seed_is_unique_per_step(steps: list[tuple[int, int, int, str]]) -> None:
    seeds = [step_seed(*step) for step in steps]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("age", AGES)
def test_training_step_never_synchronizes_with_the_device(
    age: str, missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's fake tensors have no values: reading one, which would synchronize, raises an error."""
    hair = {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]}
    module = module_of({"tasks": task_nodes(age) | {"hair": hair}}, loss={"learned": missing})
    # a CPU layout that fake tensors don't support
    monkeypatch.setattr(conv_stack, "can_train_in_onednn_layout", lambda _: False)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, torch.autocast("cpu", torch.bfloat16):
        faces = some_faces(4)
        labels = faces["labels"] | {"hair": torch.tensor([0.0, 1.0, 2.0, 0.0])}
        if missing:
            labels = {name: torch.where(torch.arange(4) == 2, torch.nan, values) for name, values in labels.items()}
        batch = Batch(
            image=fake.from_tensor(faces["image"]),
            labels={name: fake.from_tensor(values) for name, values in labels.items()},
            row=fake.from_tensor(faces["row"]),
        )
        with pytest.raises(DataDependentOutputException):
            batch["labels"]["age"].sum().item()
        for _ in range(2):
            module.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]
