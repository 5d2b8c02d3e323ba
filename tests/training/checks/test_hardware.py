"""Tests of `agegender.training.checks.hardware`."""
# ruff: noqa: F401, F811

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, Outcome
from helpers.composed import RefusalOf, refusal_of

from agegender.models.trunks import onednn
from agegender.training.checks import hardware
from agegender.training.checks.hardware import warn_about_slow_precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("choice", "missing"),
    [
        ("trainer=gpu", "sees no GPU"),
        ("trainer.accelerator=gpu", "sees no GPU"),
        ("trainer.accelerator=cuda", "sees no NVIDIA GPU"),
        ("trainer.accelerator=mps", "sees no Apple GPU"),
    ],
)
def test_check_hardware_refuses_a_missing_gpu_in_one_line(
    refusal_of: RefusalOf, tmp_path: Path, choice: str, missing: str
) -> None:
    line = refusal_of("data=synthetic", "data.cache_dir=cache", choice)
    assert missing in line and "trainer=cpu" in line
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
def test_check_hardware_on_an_apple_gpu_refuses_cuda_and_names_the_accelerator(
    refusal_of: RefusalOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    line = refusal_of("data=synthetic", "data.cache_dir=cache", "trainer.accelerator=cuda")
    assert "sees no NVIDIA GPU" in line and "trainer.accelerator=gpu" in line


def warning_of(caplog: pytest.LogCaptureFixture, device: str, precision: str) -> str:
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), precision=precision)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_about_slow_precision(trainer)  # type: ignore[arg-type]
    return caplog.text


@pytest.mark.parametrize(
    ("computes", "precision", "warned"),
    [(False, "bf16-mixed", True), (True, "bf16-mixed", False), (False, "32-true", False)],
)
def test_warn_about_slow_precision_names_float32_on_a_cpu_without_bfloat16(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, computes: bool, precision: str, warned: bool
) -> None:
    monkeypatch.setattr(hardware, "supports_dtype", lambda dtype: computes)
    text = warning_of(caplog, "cpu", precision)
    assert ("use trainer.precision=32-true" in text) == warned and bool(text) == warned


@pytest.mark.parametrize(
    ("supported", "precision", "warned"),
    [(False, "bf16-mixed", True), (True, "bf16-mixed", False), (False, "16-mixed", False), (False, "32-true", False)],
)
def test_warn_about_slow_precision_names_float16_on_a_gpu_without_bfloat16(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, supported: bool, precision: str, warned: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or supported)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    text = warning_of(caplog, "cuda", precision)
    assert ("Tesla T4" in text and "use trainer.precision=16-mixed" in text) == warned and bool(text) == warned


def test_train_in_bfloat16_runs_with_a_warning_on_a_cpu_without_bfloat16(
    run_here: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "supports_dtype", lambda dtype: dtype == torch.float32)
    monkeypatch.setattr(hardware, "supports_dtype", onednn.supports_dtype)
    done = run_here("train.py", *TINY, "trainer=mixed", "trainer.accelerator=cpu", "trainer.max_epochs=1")
    assert done.code == 0 and "this CPU, which has no bfloat16" in done.out + done.err
