"""`compile`: a compiled training leaves the same checkpoint as any other; what it lacks is said in one line."""

from __future__ import annotations

import shutil
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from nodes import age_node, trunk_node

from agegender.errors import AgeGenderError
from agegender.models.network import AgeGenderNet
from agegender.training.compiling import CompileNetwork

TRUNK, AGE = trunk_node(channels=[4]), age_node("mae")
NETWORK: dict[str, Any] = {"image_size": 16, "in_channels": 1, "age": AGE, "trunk": TRUNK, "dropout": 0.0}


class OneStep(pl.LightningModule):
    """Trains the network for a step on a constant picture."""

    def __init__(self) -> None:
        super().__init__()
        self.network = AgeGenderNet(**NETWORK)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.network(batch.view(-1, 1, 16, 16)).age.square().mean()  # type: ignore[no-any-return]

    def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.ones(4, 256), batch_size=4)  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=0.1)


def fit(wish: Any) -> OneStep:
    pl.seed_everything(0, verbose=False)
    module = OneStep()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[CompileNetwork(wish)],
    )
    trainer.fit(module)
    return module


def compiled(module: OneStep) -> bool:
    return module.network._compiled_call_impl is not None


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
@pytest.mark.parametrize("wish", ["auto", False])
def test_a_cpu_compiles_nothing_unless_told_to(wish: Any) -> None:
    assert not compiled(fit(wish))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own, about itself
def test_compiled_weights_are_those_of_a_plain_training_under_the_same_names() -> None:
    plain, fast = fit(False), fit(True)
    assert compiled(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    for name, weights in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], weights, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*")
def test_a_missing_compiler_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        AgeGenderError, match=r"compile=true: .* needs a C\+\+ compiler .*; install it, or use compile=fal"
    ):
        fit(True)
