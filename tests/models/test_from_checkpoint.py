"""A checkpoint that is damaged anywhere in its description is used as it is or refused in one line."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.made_networks import save_network
from hypothesis import given, settings
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.prediction.predictor import Predictor
from agegender.runs.checkpoint import load_checkpoint

SIMPLE = st.one_of(st.none(), st.booleans(), st.integers(-3, 400), st.floats(), st.text(max_size=8))
NESTED = st.one_of(
    st.lists(st.integers(0, 9), max_size=3), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2)
)
JUNK = st.one_of(SIMPLE, NESTED, st.just("os.system"), st.just("torch.nn.Linear"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    held = load_checkpoint(save_network(tmp_path_factory.mktemp("networks") / "tiny.ckpt"))
    MultiTaskNet.from_checkpoint(held, "tiny.ckpt")  # a module imported between examples changes what Hypothesis draws
    return held


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every entry of nested dictionaries and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [each for key, value in items for each in ((*path, key), *places(value, (*path, key)))]


@settings(max_examples=60)
@given(data=st.data())
def test_damaged_description_is_used_or_refused_in_one_line(checkpoint: dict[str, Any], data: st.DataObject) -> None:
    described = copy.deepcopy(checkpoint["agegender"])
    place = data.draw(st.sampled_from(places({"network": described["network"]})))
    node = described
    for key in place[:-1]:
        node = node[key]
    if isinstance(node, dict) and data.draw(st.booleans()):
        del node[place[-1]]
    else:
        node[place[-1]] = data.draw(JUNK)
    refused = ""
    try:
        assert MultiTaskNet.from_checkpoint({**checkpoint, "agegender": described}, "x.ckpt").image_size > 0
    except AgeGenderError as error:
        refused = str(error)
    assert not refused or (refused.startswith("x.ckpt ") and "\n" not in refused)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_the_predictor(value: float, tmp_path: Path) -> None:
    path = save_network(tmp_path / "tiny.ckpt")
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["network.heads.age.0.weight"][0, 0] = value
    torch.save(saved, path)
    with pytest.raises(AgeGenderError, match=r"tiny\.ckpt has weights that are not finite \(heads\.age\.0\.weight\)"):
        Predictor(path, "cpu", detect="never")


def test_output_that_is_no_number_is_an_error_of_the_image(tmp_path: Path, faces: Path) -> None:
    path = save_network(tmp_path / "tiny.ckpt")
    saved = torch.load(path, weights_only=True)
    saved["state_dict"]["network.heads.age.0.weight"].fill_(3e38)  # finite, but its sums are not
    torch.save(saved, path)
    answers = list(Predictor(path, "cpu", detect="never").predict(sorted(faces.glob("*.jpg"))[:2]))
    assert [answer.error for answer in answers] == ["the network's output is not a number"] * 2
    assert all(answer.values == {} for answer in answers)
