"""Every tensor of a training follows the module to its device, as far as this can be tested without one.

The device `meta` has shapes and no values: an operation on one of its tensors and one that stayed on the CPU fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from helpers.nodes import AGES, task_nodes, trunk_node
from torch import Tensor, nn

from agegender.data.loading.dataset import Batch
from agegender.training.module import AgeGenderModule

OPTIM = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 3e-3}, "scheduler": None}
TRUNKS: dict[str, dict[str, Any]] = {
    "conv_stack": trunk_node(channels=[8, 16]),
    "residual": trunk_node("residual", stem=8, channels=[16, 24], blocks=[1, 1]),
}
HAIR = {"_target_": "agegender.tasks.Multiclass", "label": "hair", "classes": ["black", "brown", "red"]}


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's autocast doesn't support the device `meta`, even where it is disabled."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def module_of(trunk: str, age: str) -> AgeGenderModule:
    network = {
        "image_size": 16,
        "in_channels": 3,
        "tasks": task_nodes(age) | {"hair": HAIR},
        "trunk": TRUNKS[trunk],
        "head_units": [8],
    }
    return AgeGenderModule(network, OPTIM, loss={"learned": True})


def tensors_of(value: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Return every tensor that is reachable from an object's attributes, with its path."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from tensors_of(each, f"{path}.{key}", seen)
    elif isinstance(value, list | tuple | set):
        for number, each in enumerate(value):
            yield from tensors_of(each, f"{path}.{number}", seen)
    elif isinstance(value, nn.Module) or type(value).__module__.startswith("agegender."):
        yield from tensors_of(getattr(value, "__dict__", {}), path, seen)


def batch_on(device: str) -> Batch:
    labels = {name: torch.zeros(4, device=device) for name in ("age", "gender", "hair")}
    image = torch.zeros(4, 3, 16, 16, dtype=torch.uint8, device=device)
    return Batch(image=image, labels=labels, row=torch.zeros(4, dtype=torch.int64, device=device))


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("age", AGES)
def test_module_moves_all_its_tensors(trunk: str, age: str) -> None:
    module = module_of(trunk, age).to("meta")
    held = dict(tensors_of(module))
    assert len(held) > 20
    # torchmetrics keeps the initial values of its states on the CPU, and copies them to the device at each reset
    stayed = {path for path, value in held.items() if value.device.type != "meta" and "._defaults." not in path}
    assert stayed == set()


def test_module_with_a_tensor_on_the_cpu_is_found() -> None:
    module = module_of("conv_stack", "mae")
    module.forgotten = {"table": [torch.zeros(3)]}  # type: ignore[assignment]
    module.to("meta")
    assert {path for path, value in tensors_of(module) if value.device.type == "cpu"} >= {".forgotten.table.0"}


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("age", AGES)
def test_training_step_mixes_no_devices(trunk: str, age: str) -> None:
    module, batch = module_of(trunk, age).to("meta"), batch_on("meta")
    loss = module.training_step(batch, 0)
    assert loss.device.type == "meta"
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad for weight in module.parameters() if weight.requires_grad]
    assert all(gradient is not None and gradient.device.type == "meta" for gradient in gradients)


def test_training_step_that_mixes_devices_fails() -> None:
    module, batch = module_of("conv_stack", "mae").to("meta"), batch_on("meta")
    batch["labels"]["age"] = torch.zeros(4)
    with pytest.raises((RuntimeError, NotImplementedError)):
        module.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("age", AGES)
def test_predictions_and_calibration_inputs_stay_on_the_device(age: str) -> None:
    module, batch = module_of("residual", age).to("meta").eval(), batch_on("meta")
    raw = module.network(batch["image"])
    columns = module.network.predict(raw)
    inputs = [task.calibration_inputs(raw[name]) for name, task in module.network.each_task()]
    assert {value.device.type for value in (*columns.values(), *inputs)} == {"meta"}
