"""Hydra's sweep syntax becomes Optuna's distributions, and a trial's values become overrides again."""

from __future__ import annotations

import pytest
from conftest import ROOT
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from agegender.errors import AgeGenderError
from agegender.sweeps.optuna.space import Space, as_overrides, read_space, sample_point

LOADER = ConfigLoaderImpl(config_search_path=create_config_search_path(str(ROOT / "conf")))


def read(*arguments: str, **params: str) -> tuple[list[str], Space]:
    return read_space({key.replace("__", "."): value for key, value in params.items()}, list(arguments), LOADER)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("interval(0,1)", FloatDistribution(0.0, 1.0)),
        ("int(interval(2,9))", IntDistribution(2, 9)),
        ("range(2,9,2)", IntDistribution(2, 8, step=2)),
        ("range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
        ("1e-3,3e-3", CategoricalDistribution(["0.001", "0.003"])),
        ("true,null", CategoricalDistribution(["True", "null"])),
        ("[8,16],[16,32]", CategoricalDistribution(["[8,16]", "[16,32]"])),
    ],
)
def test_read_space_turns_sweep_syntax_into_distributions(value: str, wanted: BaseDistribution) -> None:
    fixed, space = read("name=mine", f"x.y={value}")
    assert fixed == ["name=mine"] and space == {"x.y": wanted}


def test_read_space_expands_a_glob_over_the_options_of_a_group() -> None:
    _, space = read("age=glob(m*)")
    assert space == {"age": CategoricalDistribution(["mae", "mse"])}


def test_read_space_prefers_the_command_line_to_the_configured_space() -> None:
    fixed, space = read("a=3", "~trainer.profiler", "c=1,2", a="interval(0,1)", b="interval(0,1)")
    assert fixed == ["a=3", "~trainer.profiler"] and list(space) == ["b", "c"]


@pytest.mark.parametrize("wrong", ["tag(log,interval(0,1))", "interval(2,1)", "range(3,3)"])
def test_read_space_refuses_an_invalid_range_in_one_line(wrong: str) -> None:
    with pytest.raises(AgeGenderError, match=r"x=.* is not a valid search range of x") as caught:
        read(f"x={wrong}")
    assert "\n" not in str(caught.value)


def test_read_space_refuses_a_space_without_parameters() -> None:
    with pytest.raises(AgeGenderError, match="nothing to vary"):
        read("a=3", a="interval(0,1)")


def test_as_overrides_round_trips_the_values_of_a_trial() -> None:
    _, space = read("a=tag(log,interval(1e-12,1e-10))", "b=[8,16],[1]", "c=int(interval(1,3))", "d='x y',z")
    point = sample_point(space)
    again, none = read(*as_overrides(point), "e=1,2")
    assert list(none) == ["e"] and again == as_overrides(point)
    assert float(again[0].split("=")[1]) == point["a"]
