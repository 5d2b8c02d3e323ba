"""Archives: an entry that names a path outside its folder changes nothing there."""

from __future__ import annotations

import importlib
import io
import os
import stat
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agegender.data.sources.download import fetch_utkface
from agegender.errors import AgeGenderError


def _names_outside(way: str, faces: Path, absolute: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """A real set, and one more entry that reaches for what is outside."""
    for face in sorted(faces.iterdir())[:5]:
        info = tarfile.TarInfo(f"UTKFace/{face.name}")
        info.size = face.stat().st_size
        yield info, face.read_bytes()
    evil = tarfile.TarInfo({"above": "../../../evil.jpg", "absolute": absolute}.get(way, "UTKFace/evil.jpg"))
    if way in ("link", "link inside", "hard link"):
        evil.type = tarfile.LNKTYPE if way == "hard link" else tarfile.SYMTYPE
        evil.linkname = "26_0_0_1.jpg" if way == "link inside" else "../../../../secret.jpg"
        yield evil, b""
    elif way == "device":
        evil.type = tarfile.CHRTYPE
        yield evil, b""
    else:
        evil.size = 4
        yield evil, b"evil"


@pytest.fixture
def unpack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], Path]:
    """Fetches an archive, unpacked by the very function by which kagglehub does it."""
    extract = importlib.import_module("kagglehub.http_resolver")._extract_archive

    def fetch(archive: Path) -> Path:
        def dataset_download(_: str) -> str:
            folder = Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets" / "versions" / "1"
            folder.mkdir(parents=True)
            extract(str(archive), str(folder))
            return str(folder)

        monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
        return fetch_utkface(tmp_path / "cache", tmp_path / "missing")

    return fetch


@pytest.mark.parametrize("way", ["above", "absolute", "link", "link inside", "hard link", "device"])
def test_archive_with_an_entry_outside_its_folder_is_refused(
    way: str, faces: Path, unpack: Callable[[Path], Path], tmp_path: Path
) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        for info, content in _names_outside(way, faces, str(tmp_path / "evil.jpg")):
            archive.addfile(info, io.BytesIO(content))
    if way == "absolute":  # Python's reader takes the slash away and unpacks it inside
        assert len(list(unpack(tmp_path / "evil.tar").iterdir())) == 5
    else:
        with pytest.raises(AgeGenderError) as refused:
            unpack(tmp_path / "evil.tar")
        assert "\n" not in str(refused.value)
        assert way != "link inside" or "contains a link, 'evil.jpg', and is refused" in str(refused.value)
        assert list((tmp_path / "cache").iterdir()) == []
    assert not list(tmp_path.rglob("evil.jpg"))


@pytest.mark.parametrize("name", ["../../../evil.jpg", "ABSOLUTE", "a/../../../../evil.jpg", "..\\..\\evil.jpg"])
def test_zip_archive_unpacks_nothing_outside_its_folder(
    name: str, faces: Path, unpack: Callable[[Path], Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for face in sorted(faces.iterdir())[:5]:
            archive.write(face, f"UTKFace/{face.name}")
        archive.writestr(name.replace("ABSOLUTE", str(tmp_path / "evil.jpg")), b"evil")
        link = zipfile.ZipInfo("UTKFace/26_0_0_1.jpg")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16  # as `zip --symlinks` writes it
        archive.writestr(link, "/etc/passwd")
    folder = unpack(tmp_path / "evil.zip")
    assert len(list(folder.iterdir())) == 6 and not any(path.is_symlink() for path in folder.iterdir())
    outside = [path for path in tmp_path.rglob("*evil.jpg") if folder.parent not in path.parents]
    assert not outside


@pytest.mark.parametrize("name", [b"\xff\xfe.jpg", b"a" * 300 + b".jpg", b"<b>.jpg"], ids=["bytes", "long", "tag"])
def test_archive_with_odd_names_is_unpacked_or_refused_in_one_line(
    name: bytes, faces: Path, unpack: Callable[[Path], Path], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        for face in sorted(faces.iterdir())[:5]:
            archive.add(face, f"UTKFace/{face.name}")
        archive.addfile(tarfile.TarInfo("UTKFace/" + os.fsdecode(name)), io.BytesIO())
    if len(name) > 255:
        with pytest.raises(AgeGenderError, match="could not be downloaded") as refused:
            unpack(tmp_path / "odd.tar")
        assert "\n" not in str(refused.value) and list((tmp_path / "cache").iterdir()) == []
    else:
        assert len(list(unpack(tmp_path / "odd.tar").iterdir())) == 6
