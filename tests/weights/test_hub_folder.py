"""A folder of `agegender bundle format=hub` predicts as its run does, and a damaged one is refused in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.served import ask, served

from agegender.errors import AgeGenderError
from agegender.evaluation.report.report import write_report
from agegender.models.network import MultiTaskNet
from agegender.prediction.predictor import Predictor
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint
from agegender.training.module import AgeGenderModule
from agegender.web.model_info import read_test_metrics
from agegender.weights.card import write_card
from agegender.weights.hub_folder import bundle_hub

pytest.importorskip("safetensors")
from safetensors.torch import load_file, save_file

Run = Callable[..., Outcome]
FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def shared(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trained run. Read only."""
    return bundle_hub(trained_run, tmp_path_factory.mktemp("hub") / "tiny")


@pytest.fixture
def copied(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared, tmp_path / "copied"))


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def test_hub_folder_holds_all_that_the_checkpoint_holds(shared: Path, trained_run: Path) -> None:
    assert sorted(path.name for path in shared.iterdir()) == FILES
    ours, theirs = load_checkpoint(find_checkpoint(shared)), load_checkpoint(find_checkpoint(trained_run))
    assert ours["agegender"] == theirs["agegender"]  # network, tasks and thresholds, split, origin
    assert set(ours["network"]) == set(theirs["network"])
    for name, value in theirs["network"].items():
        own = ours["network"][name]
        assert torch.equal(own, value) and own.dtype == value.dtype if isinstance(value, torch.Tensor) else own == value
    assert ours["network"]["tasks.age._extra_state"] and ours["network"]["tasks.gender._extra_state"]


def test_hub_folder_gives_the_predictions_of_its_run_to_the_last_bit(
    shared: Path, trained_run: Path, faces: Path
) -> None:
    images = sorted(faces.glob("*.jpg"))[:16]
    found = [
        [
            (answer.age, answer.age_std, answer.age_low, answer.age_high, answer.p_female, answer.gender)
            for answer in Predictor(weights, "cpu", detect="never", tta="flip").predict(images)
        ]
        for weights in (shared, shared / "model.safetensors", trained_run)
    ]
    assert found[0] == found[1] == found[2] and len(set(found[0])) > 1


def test_hub_folder_is_loaded_by_pytorch_model_hub_mixin(shared: Path, trained_run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")

    class SharedNet(MultiTaskNet, hub.PyTorchModelHubMixin):  # type: ignore[name-defined]
        def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
            state = super().state_dict(*arguments, **options)
            return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}

    images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    theirs = MultiTaskNet.from_checkpoint(load_checkpoint(find_checkpoint(trained_run)), trained_run).eval()
    ours = SharedNet.from_pretrained(str(shared)).eval()
    with torch.inference_mode():
        expected, found = theirs(images), ours(images)
    assert set(expected) == {"age", "gender"} and all(torch.equal(found[name], expected[name]) for name in expected)


def test_hub_folder_is_tested_trained_on_and_served(
    shared: Path, trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    done = run_here("train.py", *TINY, "fit=false", f"weights={shared}", "hydra.run.dir=again")
    assert done.code == 0, done.err
    again, first = metrics_of(tmp_path / "again"), metrics_of(trained_run)
    assert all(again[name] == first[name] for name in ("test/age_mae", "test/gender_acc", "split_fingerprint"))
    module = AgeGenderModule.load_from_checkpoint(shared)
    assert module.network.state_dict()["tasks.age._extra_state"]
    with served(shared, detect="never") as site:
        assert ask(site, "/health", method="GET").status == 200


def test_page_shows_the_test_metrics_of_a_hub_folder(trained_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    write_report([run], resamples=20, faces=0)
    weights = find_checkpoint(bundle_hub(run, tmp_path / "shared"))
    tasks = Predictor(weights, "cpu", detect="never").tasks
    shown = read_test_metrics(weights, tasks)
    assert shown == read_test_metrics(run / "checkpoints" / "best.ckpt", tasks)
    assert shown is not None and shown["bands"] and shown["age_mae"] == metrics_of(run)["test/age_mae"]


def test_bundle_command_writes_a_hub_folder_and_replaces_only_one_of_its_own(
    trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    command = ("agegender/weights/__main__.py", f"run={trained_run}", "format=hub", "out=shared")
    for _ in range(2):
        done = run_here(*command)
        size = sum(path.stat().st_size for path in (tmp_path / "shared").iterdir()) / 1e6
        assert (done.code, done.out.strip()) == (0, f"shared: {size:.2f} MB, the weights of {trained_run}")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "README.md").write_text("mine")
    run_here(*command[:-1], "out=photos").assert_one_line_error("out=photos has other files: give a new folder")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["README.md"]
    run_here(*command[:-1], "out=photos/README.md").assert_one_line_error("is a file: format=hub writes a folder")
    wrong = run_here(*command[:2], "format=zip", "out=a")
    wrong.assert_one_line_error("format", "hub", code=wrong.code)


def test_card_names_metrics_split_license_and_the_binary_label(shared: Path, trained_run: Path) -> None:
    text, metrics = (shared / "README.md").read_text(), metrics_of(trained_run)
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(text).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("agegender", "image-classification", None)
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    assert values["age_mae"] == pytest.approx(metrics["test/age_mae"], abs=1e-6)
    assert values["gender_acc"] == pytest.approx(metrics["test/gender_acc"], abs=1e-6)
    assert metrics["split_fingerprint"] in data.eval_results[0].dataset_name
    assert (
        f"| split | {metrics['split_fingerprint']} |" in text and f"| age_mae | {metrics['test/age_mae']:.4g} |" in text
    )
    assert "The binary label *gender* (male, female) is that of the training data" in text
    assert "no statement about a person's gender identity" in text and "say nothing about real people" in text
    assert "agegender predict weights=hf://" in text and str(trained_run.parent) not in text


def test_card_gives_the_license_of_the_training_images(trained_run: Path, shared: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    described = load_checkpoint(find_checkpoint(trained_run))["agegender"]
    record = {**config_of(shared)["agegender"]["results"], "origin": "a | trunk:\nnon-commercial"}

    def card(**split: Any) -> tuple[str, Any]:
        text = write_card("tiny: a 'model'", {**described, "split": {**described["split"], **split}}, record)
        return text, hub.ModelCard(text).data

    text, data = card(pictures="photographs")
    assert (data.license, data.license_name) == ("other", "non-commercial-research") and "UTKFace" in data.license_link
    assert "**License.** The weights were trained on UTKFace: for non-commercial research only." in text
    assert "| initial weights | a &#124; trunk: non-commercial |" in text and data.model_name == "tiny: a 'model'"
    text, data = card(pictures="photographs", table="labels.csv")
    assert data.license == "unknown" and "state it here before you publish" in text


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.999])
def test_weights_with_a_flipped_bit_are_refused(place: float, copied: Path) -> None:
    path = copied / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(AgeGenderError, match=r"model\.safetensors is damaged, .* SHA-256 differs; copy both again$"):
        Predictor(copied, "cpu", detect="never")


def signed(folder: Path, content: bytes) -> None:
    """Replaces the weights, with their digest: what somebody else may publish."""
    (folder / "model.safetensors").write_bytes(content)
    config = config_of(folder)
    config["agegender"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}", b"PK\x03\x04 a pickle"])
def test_weights_of_any_bytes_are_refused_in_one_line(content: bytes, copied: Path) -> None:
    signed(copied, content)
    with pytest.raises(AgeGenderError, match=r"model\.safetensors|is damaged") as refused:
        Predictor(copied, "cpu", detect="never")
    assert "\n" not in str(refused.value)


def test_weights_that_do_not_fit_or_are_not_finite_are_refused(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    name = "heads.age.0.weight"
    for wrong, reason in (
        ({**tensors, name: tensors[name][:1].clone()}, "size mismatch"),
        ({**tensors, "further": torch.zeros(1)}, "Unexpected key"),
        ({key: value for key, value in tensors.items() if key != name}, "Missing key"),
        ({**tensors, name: torch.full_like(tensors[name], float("nan"))}, r"not finite \(heads\.age\.0\.weight\)"),
    ):
        save_file(wrong, copied / "model.safetensors")
        signed(copied, (copied / "model.safetensors").read_bytes())
        with pytest.raises(AgeGenderError, match=reason) as refused:
            Predictor(copied, "cpu", detect="never")
        assert "\n" not in str(refused.value)


def damage(folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """Changes config.json, and returns the error of its use."""
    config = config_of(folder)
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(AgeGenderError) as refused:
        Predictor(folder, "cpu", detect="never")
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config.pop("agegender"), "is not of an agegender model"),
        (lambda config: config.update(agegender=3), "is not of an agegender model"),
        (lambda config: config["agegender"].update(format=2), "has the format 2, not 1: update agegender"),
        (lambda config: config["agegender"].pop("sha256"), "SHA-256 differs"),
        (lambda config: config["agegender"].update(calibration=[1]), "its calibration is no mapping"),
        (lambda config: config["agegender"]["calibration"].clear(), "Missing key"),
        (lambda config: config["agegender"]["calibration"].update({"trunk.x": 1}), "Unexpected key"),
        (lambda config: config["agegender"]["calibration"].update({"tasks.age._extra_state": [1]}), "can't be used"),
        (lambda config: config["agegender"].update(split=[1]), "its split is no mapping"),
        (lambda config: config.pop("tasks"), "is of an older version"),
        (lambda config: config.update(further=1), "is damaged, or of another version"),
        (lambda config: config.update(image_size="big"), "model.safetensors"),
    ],
)
def test_damaged_config_is_refused_in_one_line(change: Callable[..., object], told: str, copied: Path) -> None:
    assert told in damage(copied, change)


@pytest.mark.parametrize("target", ["os.mkdir", "pathlib.Path.mkdir", "agegender.runs.checkpoint.os.mkdir"])
@pytest.mark.parametrize("place", ["trunk", "age"])
def test_config_names_no_code_outside_the_allow_list(place: str, target: str, copied: Path, tmp_path: Path) -> None:
    def name_code(config: dict[str, Any]) -> None:
        (config if place == "trunk" else config["tasks"])[place] = {"_target_": target, "path": str(tmp_path / "trap")}

    assert "is refused" in damage(copied, name_code)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "null", "[" * 100_000, '{"agegender": NaN}'])
def test_config_of_any_text_is_refused_in_one_line(content: str, copied: Path) -> None:
    (copied / "config.json").write_text(content)
    with pytest.raises(AgeGenderError, match=r"config\.json is") as refused:
        load_checkpoint(find_checkpoint(copied))
    assert "\n" not in str(refused.value)


def test_folder_without_one_of_the_files_is_refused(copied: Path) -> None:
    (copied / "config.json").unlink()
    with pytest.raises(AgeGenderError, match=r"config\.json can't be read .*: it belongs beside model\.safetensors"):
        load_checkpoint(find_checkpoint(copied))
    (copied / "model.safetensors").unlink()
    with pytest.raises(AgeGenderError, match="has no best checkpoint"):
        find_checkpoint(copied)
