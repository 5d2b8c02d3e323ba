"""UTKFace arrives whole, each image once, or not at all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from conftest import ROOT
from omegaconf import OmegaConf

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.sources.download import KAGGLE_DATASET, fetch_utkface, largest_folder_of_faces
from agegender.data.sources.resolve import DEFAULT_DIR
from agegender.errors import AgeGenderError

Fetch = Callable[[Path], Path]


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fetch], list[str]]:
    """Puts a stand-in where kagglehub is; what it does is given the folder that kagglehub would fill."""

    def install(fetch: Fetch) -> list[str]:
        handles: list[str] = []

        def dataset_download(handle: str) -> str:
            handles.append(handle)
            return str(fetch(Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets" / "versions" / "1"))

        monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))
        return handles

    return install


def _fill(folder: Path, faces: Path, count: int = 120) -> None:
    folder.mkdir(parents=True)
    for path in sorted(faces.iterdir())[:count]:
        shutil.copyfile(path, folder / path.name)


def _archive(faces: Path) -> Fetch:
    """Unpacks the set as Kaggle's archive holds it: twice, beside a subset."""

    def fetch(root: Path) -> Path:
        _fill(root / "UTKFace", faces)
        _fill(root / "utkface_aligned_cropped" / "UTKFace", faces)
        _fill(root / "crop_part1", faces, 50)
        _fill(root / "utkface_aligned_cropped" / "crop_part1", faces, 50)
        return root

    return fetch


def _fail_after_half(error: Exception, faces: Path) -> Fetch:
    def fetch(root: Path) -> Path:
        _fill(root / "UTKFace", faces, 60)
        (root / "archive.zip").write_bytes(b"half")
        raise error

    return fetch


def test_each_image_of_the_archives_copies_is_counted_once(
    kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path
) -> None:
    handles = kaggle(_archive(faces))
    folder = fetch_utkface(tmp_path / "cache", tmp_path / "wanted")
    assert folder == tmp_path / "cache" / "utkface" and handles == [KAGGLE_DATASET]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in faces.iterdir())
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["utkface"]  # nothing else stays


def test_download_is_not_repeated(kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path) -> None:
    handles = kaggle(_archive(faces))
    first = fetch_utkface(tmp_path / "cache", tmp_path / "wanted")
    assert fetch_utkface(tmp_path / "cache", tmp_path / "wanted") == first and len(handles) == 1


def test_existing_folder_is_used_without_a_download(
    kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path
) -> None:
    handles = kaggle(_archive(faces))
    module = AgeGenderDataModule(dir=str(faces), cache_dir=str(tmp_path / "cache"), image_size=16)
    module.prepare_data()
    module.setup()
    assert module.index.folder == faces and handles == [] and not (tmp_path / "cache" / "utkface").exists()


@pytest.mark.parametrize("given", ["data/UTKFace", "./data/UTKFace/"])
def test_default_folder_that_is_missing_is_downloaded_and_indexed(
    given: str, kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handles = kaggle(_archive(faces))
    module = AgeGenderDataModule(dir=given, cache_dir=str(tmp_path / "cache"), image_size=16)
    module.prepare_data()
    module.setup()
    assert len(module.index.names) == 120 and handles == [KAGGLE_DATASET] and not (tmp_path / "data").exists()


@pytest.mark.parametrize("downloaded", [True, False])
@pytest.mark.parametrize("given", ["data/UTKface", "UTKFace", "../data/UTKFace", "/nowhere/data/UTKFace", "link"])
def test_any_other_folder_that_is_missing_is_refused_with_its_whole_path(
    given: str,
    downloaded: bool,
    kaggle: Callable[[Fetch], list[str]],
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("link").symlink_to("moved")
    if downloaded:
        shutil.copytree(faces, tmp_path / "cache" / "utkface")
    handles = kaggle(_archive(faces))
    with pytest.raises(AgeGenderError, match=rf"does not exist \(no folder {tmp_path / 'here' / given}\)[^\n]*$"):
        AgeGenderDataModule(dir=given, cache_dir=str(tmp_path / "cache")).find_index()
    assert handles == []


def test_default_folder_whose_link_is_broken_is_refused(
    kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handles = kaggle(_archive(faces))
    Path("data").mkdir()
    Path("data/UTKFace").symlink_to("/nowhere")
    with pytest.raises(AgeGenderError, match=r"data\.dir=data/UTKFace does not exist"):
        AgeGenderDataModule(dir="data/UTKFace", cache_dir=str(tmp_path / "cache")).find_index()
    assert handles == []


def test_default_folder_of_the_config_is_the_one_that_is_downloaded() -> None:
    assert OmegaConf.load(ROOT / "conf" / "data" / "utkface.yaml").dir == str(DEFAULT_DIR)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            requests.exceptions.ConnectionError("HTTPSConnectionPool\n(host='www.kaggle.com')"),
            "Kaggle can't be reached",
        ),
        (requests.exceptions.ConnectTimeout("slow"), "Kaggle can't be reached"),
        (requests.exceptions.ReadTimeout("slow"), "Kaggle can't be reached"),
        (ConnectionResetError("reset"), "Kaggle can't be reached"),
        (TimeoutError("slow"), "Kaggle can't be reached"),
        (OSError(28, "No space left on device"), r"OSError: \[Errno 28\] No space left on device"),
        (ValueError("two\nlines"), "ValueError: two lines"),
    ],
)
def test_offline_error_names_the_alternatives_and_leaves_nothing(
    kaggle: Callable[[Fetch], list[str]],
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    kaggle(_fail_after_half(error, faces))
    wanted = DEFAULT_DIR
    with pytest.raises(AgeGenderError, match=reason) as caught:
        AgeGenderDataModule(dir=str(wanted), cache_dir=str(tmp_path / "cache")).prepare_data()
    message = str(caught.value)
    assert f"data.dir={wanted} does not exist" in message and "\n" not in message
    assert all(way in message for way in ("data.dir=...", "go online", "data=synthetic"))
    assert list((tmp_path / "cache").iterdir()) == [] and not wanted.exists()


def test_download_that_failed_can_be_repeated(
    kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path
) -> None:
    kaggle(_fail_after_half(requests.exceptions.ConnectionError(), faces))
    with pytest.raises(AgeGenderError):
        fetch_utkface(tmp_path / "cache", tmp_path / "wanted")
    kaggle(_archive(faces))
    assert len(list(fetch_utkface(tmp_path / "cache", tmp_path / "wanted").iterdir())) == 120


def test_interrupted_download_leaves_nothing(kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path) -> None:
    def fetch(root: Path) -> Path:
        _fill(root / "UTKFace", faces, 10)
        raise KeyboardInterrupt

    kaggle(fetch)
    with pytest.raises(KeyboardInterrupt):
        fetch_utkface(tmp_path / "cache", tmp_path / "wanted")
    assert list((tmp_path / "cache").iterdir()) == []


def test_archive_without_faces_is_an_error_and_leaves_nothing(
    kaggle: Callable[[Fetch], list[str]], tmp_path: Path
) -> None:
    def fetch(root: Path) -> Path:
        (root / "cats").mkdir(parents=True)
        (root / "cats" / "cat.jpg").touch()
        return root

    kaggle(fetch)
    with pytest.raises(AgeGenderError, match=r"contains no UTKFace-named image; set data\.dir="):
        fetch_utkface(tmp_path / "cache", tmp_path / "wanted")
    assert list((tmp_path / "cache").iterdir()) == []


def test_concurrent_download_uses_the_copy_finished_first(
    kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path
) -> None:
    def fetch(root: Path) -> Path:
        _fill(tmp_path / "cache" / "utkface", faces)  # another process got there meanwhile
        return _archive(faces)(root)

    kaggle(fetch)
    assert fetch_utkface(tmp_path / "cache", tmp_path / "wanted") == tmp_path / "cache" / "utkface"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["utkface"]


@pytest.mark.parametrize("before", [None, "/elsewhere"])
@pytest.mark.parametrize("fails", [True, False])
def test_kagglehub_cache_variable_is_restored(
    kaggle: Callable[[Fetch], list[str]],
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str | None,
    fails: bool,
) -> None:
    if before is None:
        monkeypatch.delenv("KAGGLEHUB_CACHE", raising=False)
    else:
        monkeypatch.setenv("KAGGLEHUB_CACHE", before)
    kaggle(_fail_after_half(ValueError(), faces) if fails else _archive(faces))
    try:
        fetch_utkface(tmp_path / "cache", tmp_path / "wanted")
    except AgeGenderError:
        assert fails
    assert os.environ.get("KAGGLEHUB_CACHE") == before


def test_cache_folder_that_cannot_be_made_is_an_error_in_one_line(
    kaggle: Callable[[Fetch], list[str]], faces: Path, tmp_path: Path
) -> None:
    handles = kaggle(_archive(faces))
    (tmp_path / "file").touch()
    with pytest.raises(AgeGenderError, match=r"Not a directory.*data\.cache_dir=") as caught:
        fetch_utkface(tmp_path / "file" / "cache", tmp_path / "wanted")
    assert "\n" not in str(caught.value) and handles == []


def test_archive_folder_with_the_most_faces_is_used(faces: Path, tmp_path: Path) -> None:
    _fill(tmp_path / "a" / "deep", faces, 9)
    _fill(tmp_path / "z", faces, 9)
    _fill(tmp_path / "b", faces, 8)
    assert largest_folder_of_faces(tmp_path) == tmp_path / "z"
    _fill(tmp_path / "c" / "deep" / "er", faces, 10)
    assert largest_folder_of_faces(tmp_path) == tmp_path / "c" / "deep" / "er"
