"""ONNX Runtime's files for browsers come from a folder, or once from the npm registry, verified by their hash."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.chromium import file_server

from agegender.errors import AgeGenderError
from agegender.system.files import default_cache_dir
from agegender.web.site import runtime
from agegender.web.site.runtime import ENTRY, NAMES, runtime_files

CONTENT = {name: f"/*!\n * ONNX Runtime Web v1.2.3\n */ {name}".encode() for name in NAMES}


def package() -> bytes:
    """Returns an npm package with the files and others."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as made:
        for name, content in {"dist/other.js": b"other", **{f"dist/{name}": CONTENT[name] for name in NAMES}}.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A registry on this computer with a package; the cache is empty."""
    file = tmp_path / "registry" / "runtime.tgz"
    file.parent.mkdir()
    content = package()  # made once: gzip writes the time
    file.write_bytes(content)
    monkeypatch.setenv("AGEGENDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(runtime, "INTEGRITY", base64.b64encode(hashlib.sha512(content).digest()).decode())
    with file_server(file.parent) as address:
        monkeypatch.setattr(runtime, "ADDRESS", f"{address}runtime.tgz")
        yield file


def test_runtime_files_are_downloaded_once(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runtime_files(None) == (CONTENT, "1.2.3")
    assert "downloading onnxruntime-web" in capsys.readouterr().out
    registry.unlink()
    assert runtime_files(None) == (CONTENT, "1.2.3")
    assert capsys.readouterr().out == ""


def test_a_damaged_download_in_the_cache_is_replaced(registry: Path) -> None:
    runtime_files(None)
    (cached,) = default_cache_dir().iterdir()
    cached.write_bytes(cached.read_bytes()[:-1])
    assert runtime_files(None) == (CONTENT, "1.2.3")


def test_an_altered_package_is_refused_and_not_kept(registry: Path) -> None:
    registry.write_bytes(registry.read_bytes()[:-1] + b"?")
    with pytest.raises(AgeGenderError, match=r"not the published file: its SHA-512 differs; npm pack onnxruntime-web@"):
        runtime_files(None)
    assert not default_cache_dir().exists()


def test_without_a_network_the_error_says_what_to_download_and_how_to_give_it(registry: Path) -> None:
    registry.unlink()
    with pytest.raises(AgeGenderError) as caught:
        runtime_files(None)
    assert str(caught.value) == (
        f"{runtime.ADDRESS} can't be downloaded (HTTPError); npm pack onnxruntime-web@{runtime.VERSION}, unpack it, "
        "and give runtime=<its folder dist>"
    )


def test_a_folder_is_read_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "ADDRESS", "http://127.0.0.1:1/")
    for name, content in CONTENT.items():
        (tmp_path / name).write_bytes(content)
    assert runtime_files(str(tmp_path)) == (CONTENT, "1.2.3")
    (tmp_path / ENTRY).write_bytes(b"something else")
    with pytest.raises(AgeGenderError, match=f"{ENTRY} is not a file of onnxruntime-web"):
        runtime_files(str(tmp_path))
    (tmp_path / NAMES[-1]).unlink()
    with pytest.raises(AgeGenderError, match=rf"{NAMES[-1]} can't be read \(No such file or directory\); npm pack"):
        runtime_files(str(tmp_path))
