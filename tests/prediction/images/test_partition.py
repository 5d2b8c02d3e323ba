"""Shards of predict.py: each predicts its part of one list, and the outputs concatenate to that of one run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from helpers.made_networks import save_network
from hypothesis import given
from hypothesis import strategies as st

from agegender.errors import AgeGenderError
from agegender.prediction.images.partition import Shard, list_digest, parse_shard
from agegender.prediction.predictor import ImageResult
from agegender.prediction.writers.partial_results import PartialResults

Run = Callable[..., Outcome]
SHARDS = ("1/3", "2/3", "3/3")


@pytest.fixture
def settings(faces: Path, tmp_path: Path) -> tuple[str, ...]:
    """Arguments for 120 images, shards of which hold batches of 16, 16 and 8."""
    weights = save_network(tmp_path / "net.ckpt")
    return f"img={faces}", f"weights={weights}", "detect=never", "batch_size=16"


def predict_to_bytes(run_here: Run, folder: Path, *arguments: str, out: str) -> bytes:
    outcome = run_here("predict.py", *arguments, f"out={out}")
    assert outcome.code == 0, outcome.err
    return (folder / out).read_bytes()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_shards_of_whole_batches_concatenate_to_the_bytes_of_one_run(
    run_here: Run, settings: tuple[str, ...], tmp_path: Path, form: str
) -> None:
    settings = (*settings[:-1], "batch_size=8")  # 40 images each
    whole = predict_to_bytes(run_here, tmp_path, *settings, out=f"whole.{form}")
    parts = [
        predict_to_bytes(run_here, tmp_path, *settings, f"shard={shard}", out=f"{shard[0]}.{form}") for shard in SHARDS
    ]
    joined = "cat [123].jsonl" if form == "jsonl" else "head -n 1 1.csv; tail -q -n +2 [123].csv"
    assert subprocess.run(["sh", "-c", joined], cwd=tmp_path, capture_output=True, check=True).stdout == whole
    assert all(part.count(b"\n") >= 32 for part in parts)  # no shard holds all rows


def test_stopped_shard_resumes_to_the_same_bytes(
    run_here: Run, settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within a batch: the whole batch is predicted again, so that its images stay together."""
    undisturbed = predict_to_bytes(run_here, tmp_path, *settings, "shard=2/3", out="undisturbed.jsonl")
    add, answered = PartialResults.add, 0

    def stop(progress: PartialResults, given: ImageResult) -> None:
        nonlocal answered
        answered += 1
        if answered > 21:
            raise KeyboardInterrupt
        add(progress, given)

    with monkeypatch.context() as patch:
        patch.setattr(PartialResults, "add", stop)
        assert run_here("predict.py", *settings, "shard=2/3", "out=part.jsonl").code == 130
    again = run_here("predict.py", *settings, "shard=2/3", "out=part.jsonl")
    assert again.code == 1 and "resume=true" in again.err  # the partial results are kept
    resumed = run_here("predict.py", *settings, "shard=2/3", "out=part.jsonl", "resume=true")
    assert resumed.code == 0 and "16 images are done already" in resumed.err
    assert (tmp_path / "part.jsonl").read_bytes() == undisturbed


@pytest.mark.parametrize(
    ("change", "named"),
    [("shard=3/3", "shard=2/3"), ("batch_size=8", "batch_size=16"), ("img=[a.jpg,b.jpg]", "list=")],
)
def test_shard_is_not_resumed_under_other_settings(
    run_here: Run, settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, named: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("agegender.prediction.predict.write_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run_here("predict.py", *settings, "shard=2/3", "out=part.csv").code == 130
    kept = (tmp_path / "part.csv.partial").read_bytes()
    name = change.split("=")[0]
    others = [setting for setting in (*settings, "shard=2/3") if not setting.startswith(f"{name}=")]
    refused = run_here("predict.py", *others, change, "out=part.csv", "resume=true")
    assert refused.code == 1 and "was started with" in refused.err and named in refused.err
    assert (tmp_path / "part.csv.partial").read_bytes() == kept


@pytest.mark.slow
def test_shard_reads_all_of_standard_input_first(
    run_here: Run, settings: tuple[str, ...], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(os.path.join(faces, name) for name in os.listdir(faces))
    lines = "".join(f"{name}\n" for name in names).encode()
    parts = []
    for shard in SHARDS:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
        rest = [setting for setting in settings if not setting.startswith("img=")]
        parts.append(predict_to_bytes(run_here, tmp_path, "img=-", *rest, f"shard={shard}", out=f"{shard[0]}.jsonl"))
    assert b"".join(parts) == predict_to_bytes(run_here, tmp_path, *settings, out="whole.jsonl")


def test_shards_of_a_short_list_have_an_image_each_and_equal_one_run_but_for_rounding(
    run_here: Run, settings: tuple[str, ...], faces: Path, tmp_path: Path
) -> None:
    names = sorted(str(path) for path in faces.glob("*.jpg"))[:4]
    settings = (f"img=[{','.join(names)}]", *settings[1:])
    whole = predict_to_bytes(run_here, tmp_path, *settings, out="whole.jsonl").splitlines()
    parts = [predict_to_bytes(run_here, tmp_path, *settings, f"shard={i}/4", out=f"{i}.jsonl") for i in range(1, 5)]
    assert [part.count(b"\n") for part in parts] == [1] * 4
    for part, line in zip(parts, whole, strict=True):
        one, other = json.loads(part), json.loads(line)
        assert one["path"] == other["path"] and one["age"] == pytest.approx(other["age"], abs=0.011)
    empty = [predict_to_bytes(run_here, tmp_path, *settings, f"shard={i}/5", out=f"{i}.jsonl") for i in (1, 2)]
    assert [part.count(b"\n") for part in empty] == [0, 1]


def test_shard_refuses_a_camera(run_here: Run, settings: tuple[str, ...]) -> None:
    refused = run_here("predict.py", "img=webcam", *settings[1:], "shard=1/2", "out=-")
    assert (refused.code, refused.out) == (1, "") and "a finite list" in refused.err


@pytest.mark.parametrize("given", ["", "3", "0/3", "4/3", "-1/3", "1/0", "a/b", "1/2/3", "1.5/3"])
def test_parse_shard_refuses_invalid_values(given: str) -> None:
    with pytest.raises(AgeGenderError, match=r"^shard="):
        parse_shard(given)


@given(size=st.integers(0, 300), count=st.integers(1, 40))
def test_shards_partition_the_list_evenly(size: int, count: int) -> None:
    names = [str(number) for number in range(size)]
    parts = [Shard(number, count).select(names) for number in range(1, count + 1)]
    assert [name for part in parts for name in part] == names
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_list_digest_depends_on_names_and_order() -> None:
    lists: tuple[list[str], ...] = (["a", "b"], ["b", "a"], ["ab"], ["a", "b", "c"], [])
    assert len({list_digest(names) for names in lists}) == len(lists)
