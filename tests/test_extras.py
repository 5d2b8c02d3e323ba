"""Each extra works in an environment that holds nothing but it and the package's own dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT, TINY
from packaging.requirements import Requirement

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NETWORK = (*[each for each in TINY if not each.startswith("data")], "trainer.max_epochs=1", "data.image_size=32")
SMALL = (*NETWORK, "data=utkface", "data.dir=faces", "data.batch_size=8")
DRAW = """
from pathlib import Path
from agegender.data.sources.synthetic import generate_faces
generate_faces(Path("faces"), 40, size=64)
"""
DETECT = """
from pathlib import Path
from agegender import Predictor
found = list(Predictor("small", detect="always").predict(sorted(Path("faces").glob("*.jpg"))))
assert sum(each.error is None for each in found) > 20, found
"""
HEIC = """
from pathlib import Path
import pillow_heif
from PIL import Image
from agegender import Predictor
pillow_heif.register_heif_opener()
Image.open(min(Path("faces").glob("*.jpg"))).save("face.heic")
(found,) = Predictor("small", detect="never")("face.heic")
assert found.error is None, found
"""
# Commands that need the extra, one after the other.
COMMANDS: dict[str, list[tuple[str, ...]]] = {
    "parquet": [("predict.py", "img=faces", "detect=never", "weights=small", "out=answers.parquet")],
    "stream": [
        ("-m", "agegender", "pack", "data.dir=faces", "out=shards"),
        ("train.py", *NETWORK, "data=streaming", "data.dir=shards", "data.batch_size=4", "data.num_workers=2"),
    ],
    "faces": [("-c", DETECT)],
    "heic": [("-c", HEIC)],
    "onnx": [
        ("-m", "agegender", "export", "weights=small", "out=model.onnx"),
        ("predict.py", "img=faces", "detect=never", "backend=onnx", "weights=model.onnx", "out=answers.csv"),
    ],
    "web": [("-c", "import agegender.web.app, agegender.web.server")],
    "sweep": [("train.py", *SMALL, "sweep=optuna", "hydra.sweeper.n_trials=1", "hydra.sweep.dir=study")],
    "timm": [("train.py", *SMALL, "model=timm", "model.pretrained=null", "data.grayscale=false")],
    "wandb": [("train.py", *SMALL, "logger=wandb")],
    "mlflow": [("train.py", *SMALL, "logger=mlflow")],
    "hub": [
        ("train.py", *SMALL, "hydra.run.dir=run"),
        ("-m", "agegender", "bundle", "run=run", "format=hub", "out=shared"),
        ("predict.py", "img=faces", "detect=never", "weights=shared", "out=answers.csv"),
        ("-c", "import huggingface_hub"),
    ],
    "slurm": [("train.py", "hydra/launcher=submitit_local", "--cfg", "hydra")],
}


def distributions(requirements: list[str], seen: set[tuple[str, str]] | None = None) -> Iterator[metadata.Distribution]:
    """Yield the installed distributions that requirements need, and those that these need."""
    seen = set() if seen is None else seen
    for text in requirements:
        wanted = Requirement(text)
        for extra in ("", *wanted.extras):
            if (wanted.name.lower(), extra) in seen:
                continue
            seen.add((wanted.name.lower(), extra))
            if wanted.name == "agegender":
                yield from distributions(DECLARED["optional-dependencies"].get(extra, []), seen)
                continue
            found = metadata.distribution(wanted.name)
            yield found
            needs = [Requirement(each) for each in found.requires or []]
            chosen = [each for each in needs if each.marker is None or each.marker.evaluate({"extra": extra})]
            yield from distributions([f"{each.name}[{','.join(each.extras)}]" for each in chosen], seen)


def make_environment(folder: Path, extra: str) -> Path:
    """Make a virtual environment of links to an extra's distributions, and return its Python."""
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    for found in distributions([*DECLARED["dependencies"], f"agegender[{extra}]"]):
        for name in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            target = Path(str(found.locate_file(name)))
            if target.exists() and not (site / name).exists():
                (site / name).symlink_to(target)
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize("extra", [name for name in DECLARED["optional-dependencies"] if name != "dev"])
def test_extra_works_in_an_environment_that_holds_only_it(extra: str, tmp_path: Path) -> None:
    try:
        python = make_environment(tmp_path / "environment", extra)
    except metadata.PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed")
    if extra != "parquet":
        probe = [str(python), "-c", "import pyarrow"]  # an extra of its own, which several libraries use if it is there
        assert subprocess.run(probe, capture_output=True, check=False).returncode
    here = {"PYTHONPATH": str(ROOT), "AGEGENDER_CACHE": str(tmp_path / "cache"), "WANDB_MODE": "offline"}
    for command in [("-c", DRAW), *COMMANDS[extra]]:
        words = [str(ROOT / word) if word in ("train.py", "predict.py") else str(word) for word in command]
        done = subprocess.run(
            [str(python), *words], cwd=tmp_path, env=os.environ | here, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
