"""The record of a run that is resumed: somebody else's run can't put options on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agegender.errors import AgeGenderError
from agegender.runs.resume import resume_overrides


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("agegender.runs.resume._checkpoint", lambda given, run: run / "checkpoints" / "last.ckpt")
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints").mkdir()
    return tmp_path / "run"


def record(run: Path, *overrides: str) -> None:
    OmegaConf.save(OmegaConf.create(list(overrides)), run / ".hydra" / "overrides.yaml")


@pytest.mark.parametrize(
    "item",
    [
        "--experimental-rerun=job.pkl",
        "--config-dir=theirs",
        "-cd",
        "theirs",
        "--multirun",
        "-m",
        "",
        "=x",
        "@a=b",
        "a b=c",
    ],
)
def test_record_with_anything_but_settings_is_refused(run: Path, item: str) -> None:
    record(run, "seed=3", item)
    with pytest.raises(AgeGenderError, match="which is no setting: it is refused; use weights= instead"):
        resume_overrides([f"resume={run}"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(item=st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_record_never_adds_an_option(run: Path, item: str) -> None:
    (run / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create([item])), encoding="utf-8")
    try:
        arguments = resume_overrides([f"resume={run}"])
    except AgeGenderError:
        return
    assert not any(argument.startswith("-") for argument in arguments)


@pytest.mark.parametrize("text", ["a: 1\n", "[\n", "- a=1\n- {b: 2}\n", "\x00"])
def test_damaged_record_is_refused_in_one_line(run: Path, text: str) -> None:
    (run / ".hydra" / "overrides.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(AgeGenderError, match=r"overrides\.yaml (is damaged|holds)"):
        resume_overrides([f"resume={run}"])


@pytest.mark.parametrize("item", ["hydra/job_logging=theirs", "hydra.searchpath=[x]", "+hydra/launcher=x", "trust=os"])
def test_record_configures_neither_hydra_nor_trust(run: Path, item: str) -> None:
    record(run, "seed=3", item)
    arguments = resume_overrides([f"resume={run}"])
    assert "seed=3" in arguments and item not in arguments
