"""`weights=hf://owner/name` downloads two files through huggingface_hub, here from a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Outcome
from helpers.made_networks import save_network
from helpers.model_hub import commit_of, model_hub

from agegender.errors import AgeGenderError
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint
from agegender.runs.hub_model import is_hub_address
from agegender.training.distillation.teachers import find_teachers
from agegender.weights.hub_folder import bundle_hub

pytest.importorskip("safetensors")
pytest.importorskip("huggingface_hub")

# The endpoint is read when huggingface_hub is imported, so each address is tried in a process of its own.
DOWNLOAD = """
import json, sys
from agegender.errors import AgeGenderError
from agegender.runs.hub_model import download
def answer(address):
    try:
        return str(download(address))
    except AgeGenderError as error:
        return f"error: {error}"
print(json.dumps([answer(address) for address in sys.argv[1:]]))
"""


def environment(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    own = {**more, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1"}
    own |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | own


def answers(home: Path, endpoint: str, *addresses: str, **more: str) -> list[str]:
    """Returns the folder, or the error, of each address."""
    command, place = [sys.executable, "-c", DOWNLOAD, *addresses], environment(home, endpoint, **more)
    done = subprocess.run(command, env=place, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return share(save_network(tmp_path_factory.mktemp("shared") / "tiny.ckpt"))


def share(checkpoint: Path) -> Path:
    """Writes a checkpoint's run and bundles it; returns the folder."""
    run = checkpoint.parent / "run"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint.rename(run / "checkpoints" / "best.ckpt")
    images = {f"images/{part}": 8 for part in ("train", "val", "test")}
    metrics = {"test/age_mae": 4.5, "test/gender_acc": 0.9, "epochs": 1, "best_epoch": 1, "overrides": "", **images}
    (run / "metrics.json").write_text(json.dumps(metrics))
    return bundle_hub(run, checkpoint.parent / "shared")


@pytest.mark.parametrize(
    "offline",
    [{"HF_HUB_OFFLINE": "1"}, pytest.param({}, marks=pytest.mark.slow)],
    ids=["offline mode", "unreachable"],  # the hub's library tries again for 20 s to reach it
)
def test_hub_model_is_downloaded_at_a_revision_and_kept_for_offline_use(
    shared: Path, tmp_path: Path, offline: dict[str, str]
) -> None:
    (tmp_path / "bare").mkdir()
    repositories = {"me/tiny": {"main": shared, "v1": shared}, "me/bare": {"main": tmp_path / "bare"}}
    home = tmp_path / "home"
    good = ("hf://me/tiny", "hf://me/tiny@v1", str(Path("hf://me/tiny")))
    wrong = {
        "hf://me/none": "there is no public repository me/none; check the name, or if it is private, log in",
        "hf://me/tiny@v9": "me/tiny has no revision v9; give a branch, a tag or a commit",
        "hf://me/bare": "the repository lacks config.json or model.safetensors",
    }
    with model_hub(repositories) as hub:
        found = answers(home, hub.address, *good, *wrong)
        taken = {path.rpartition("/")[2] for _, path in hub.requests if path.startswith("/me/")}
    assert found[0] == found[1] == found[2] and Path(found[0]).name == commit_of(shared)
    assert sorted(path.name for path in Path(found[0]).iterdir()) == ["config.json", "model.safetensors"]
    assert taken == {"config.json", "model.safetensors"}
    for refused, (address, reason) in zip(found[3:], wrong.items(), strict=True):
        assert refused.startswith(f"error: {address} can't be downloaded: {reason}") and "\n" not in refused
    assert load_checkpoint(Path(found[0]) / "model.safetensors")["agegender"]["split"]["fingerprint"] == "0123456789ab"
    cached, missing = answers(
        home, hub.address, "hf://me/tiny", "hf://me/other", **offline
    )  # nothing listens there now
    assert cached == found[0]
    assert missing == (
        "error: hf://me/other can't be downloaded: the hub can't be reached, and the model is not in the cache; check "
        "the connection, or give a folder"
    )


def test_predict_gives_the_same_answers_from_the_hub_as_from_the_checkpoint(
    shared: Path, faces: Path, tmp_path: Path, run_here: Callable[..., Outcome]
) -> None:
    settings = (f"img={faces}/*.jpg", "detect=never")
    with model_hub({"me/tiny": {"main": shared}}) as hub:
        command = [sys.executable, str(ROOT / "predict.py"), *settings, "weights=hf://me/tiny", "out=hub.csv"]
        place = environment(tmp_path / "home", hub.address)
        done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert run_here("predict.py", *settings, f"weights={shared.parent}/run", "out=run.csv").code == 0
    assert (tmp_path / "hub.csv").read_text() == (tmp_path / "run.csv").read_text()


def test_hub_folder_is_a_teacher(shared: Path) -> None:
    described = load_checkpoint(shared / "model.safetensors")["agegender"]
    (teacher,) = find_teachers(str(shared), described["network"]["tasks"])
    assert teacher.split["fingerprint"] == "0123456789ab"


@pytest.mark.parametrize("address", ["hf://tiny", "hf://me/tiny/sub", "hf://me/tiny@", "hf:///tiny", "hf://me/ti ny"])
def test_address_of_another_form_is_refused_with_the_right_one(address: str) -> None:
    with pytest.raises(AgeGenderError, match=r"write hf://owner/name\[@revision\]$"):
        find_checkpoint(address)


def test_only_addresses_with_the_scheme_are_of_the_hub(tmp_path: Path) -> None:
    assert is_hub_address("hf://me/tiny") and is_hub_address(Path("hf://me/tiny"))
    assert not is_hub_address("me/tiny") and not is_hub_address(tmp_path / "hf:")
