"""What `img=` means: any file name reaches the config unharmed; folders, globs and lists resolve in a fixed order."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from agegender.errors import AgeGenderError
from agegender.prediction.inputs import image_arguments, list_images

# Whatever a file system takes, often made of what Hydra, OmegaConf or a glob reads as syntax.
SYNTAX = st.text(st.sampled_from("ab1.é \t\n'\"\\${}[](),=:;!~+-*?#@%&|<>"), min_size=1, max_size=12)
ANYTHING = st.text(min_size=1, max_size=12) | st.binary(min_size=1, max_size=12).map(os.fsdecode)
NAMES = (SYNTAX | ANYTHING).filter(lambda name: name not in (".", "..") and not {"/", "\0"} & set(name))
TRAPS = (
    "holiday (1).jpg",
    "a, b.jpg",
    "a=b.jpg",
    "o'neill.jpg",
    "'quoted'.jpg",
    '"quoted".jpg',
    "photo[1].jpg",
    "[1].jpg",
    "[a,b].jpg",
    "{a: b}.jpg",
    "${x}.jpg",
    "\\${x}'.jpg",
    "${oc.env:HOME}",
    "back\\",
    "a\\b'c.jpg",
    "\\'",
    "\\\\'",
    "null",
    "true",
    "1e3",
    "2016",
    "*.jpg",
    "+plus.jpg",
    "~tilde.jpg",
    " around ",
    "日本.jpg",
    "not utf-8 \udcff.jpg",
    "choice(a,b)",
)


@pytest.fixture(scope="module", autouse=True)
def _composing() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def composed(*arguments: str) -> dict[str, Any]:
    """Returns what predict.py's code would be given for a command line."""
    resolved = OmegaConf.to_container(compose("predict", image_arguments(arguments)), resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def make(folder: Path, names: list[str]) -> None:
    for name in names:
        try:
            (folder / name).touch()
        except (OSError, UnicodeEncodeError):  # not a name on this file system
            assume(False)


@settings(max_examples=60, deadline=None)
@example(names=list(TRAPS))
@example(names=["\\${"])
@example(names=["'\\"])
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_whatever_a_file_is_called_its_name_reaches_the_code_as_it_is(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make(Path(folder), names)
        given_names = [f"img={name}" for name in names]
        assert list_images(composed(*given_names)["img"]) == names


@settings(max_examples=30, deadline=None)
@example(names=list(TRAPS))
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_names_left_by_the_shells_own_globbing_need_no_img_before_them(names: list[str]) -> None:
    names = [name for name in names if not name.startswith(("-", "img="))]
    assume(names)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make(Path(folder), names)
        assert list_images(composed(*names, "batch_size=3")["img"]) == names


@settings(max_examples=30, deadline=None)
@given(name=NAMES.filter(lambda name: "," not in name and name[0] not in "['\""))
def test_a_name_that_does_not_exist_reaches_the_code_as_it_is_for_the_error_message(name: str) -> None:
    assume(not Path(name).exists())
    assert composed(f"img={name}")["img"] == [name]


@pytest.mark.parametrize(
    "arguments",
    [
        ("img=[a.jpg,b.jpg]",),
        ("img=['a.jpg',\"b.jpg\"]",),
        ("img=a.jpg,b.jpg",),
        ("img=a.jpg", "img=b.jpg"),
        ("a.jpg", "b.jpg"),
        ("img=a.jpg", "batch_size=3", "b.jpg"),
    ],
)
def test_several_pictures_can_be_given_in_every_usual_way(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["a.jpg", "b.jpg"])
    assert composed(*arguments)["img"] == ["a.jpg", "b.jpg"]


def test_a_file_whose_name_looks_like_a_list_wins_over_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["a.jpg", "b.jpg", "a.jpg,b.jpg", "[a.jpg,b.jpg]"])
    assert composed("img=a.jpg,b.jpg")["img"] == ["a.jpg,b.jpg"]
    assert composed("img=[a.jpg,b.jpg]")["img"] == ["[a.jpg,b.jpg]"]


def test_settings_and_hydras_own_options_are_passed_on_untouched() -> None:
    settings_only = ["out=a b.csv", "+extra=1", "~weights", "++device=cpu", "--cfg", "job", "--help", "-cn", "other"]
    assert image_arguments(settings_only) == settings_only


@pytest.mark.parametrize("argument", ["img=", "img=,", ""])
def test_an_empty_name_is_no_picture_and_never_the_current_folder(argument: str) -> None:
    assert image_arguments([argument]) == []


def test_a_folder_gives_its_pictures_and_those_of_its_sub_folders_sorted_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    pictures = ["B.JPG", "a.png", "sub/c.webp", "sub/deeper/d.Tiff", "z.chip.jpg"]
    make(tmp_path, [*pictures, "notes.txt", "faces.csv", "jpg", "sub/film.mp4", ".DS_Store", "a.jpg~"])
    assert list_images([str(tmp_path)]) == [str(tmp_path / name) for name in pictures]


def test_a_glob_gives_what_it_matches_sorted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    make(tmp_path, ["b.jpg", "a.jpg", "c.png", "sub/d.jpg"])
    assert list_images([f"{tmp_path}/*.jpg"]) == [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    assert list_images([f"{tmp_path}/**/*.jpg"]) == [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "sub/d.jpg")]


def test_brackets_are_a_glob_only_where_no_file_has_that_name(tmp_path: Path) -> None:
    make(tmp_path, ["photo1.jpg"])
    assert list_images([f"{tmp_path}/photo[1].jpg"]) == [str(tmp_path / "photo1.jpg")]
    make(tmp_path, ["photo[1].jpg"])
    assert list_images([f"{tmp_path}/photo[1].jpg"]) == [str(tmp_path / "photo[1].jpg")]


def test_pictures_come_in_the_order_they_were_given_in(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    make(tmp_path, ["z.jpg", "folder/m.jpg", "a.jpg"])
    names = [str(tmp_path / name) for name in ("z.jpg", "folder/m.jpg", "a.jpg")]
    assert list_images([names[0], str(tmp_path / "folder"), names[2]]) == names


@pytest.mark.parametrize("nothing", ["missing.jpg", "*.gif", "photo[2].jpg", "empty"])
def test_what_leads_nowhere_among_others_stays_in_the_list_for_a_row_of_its_own(nothing: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make(tmp_path, ["a.jpg"])
    names = [str(tmp_path / "a.jpg"), str(tmp_path / nothing)]
    assert list_images(names) == names


@pytest.mark.parametrize("nothing", ["*.gif", "empty"])
def test_where_nothing_at_all_is_found_the_error_names_what_was_asked_for(nothing: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgeGenderError, match="no picture found") as caught:
        list_images([str(tmp_path / nothing)])
    assert str(tmp_path / nothing) in str(caught.value)


def test_a_tilde_is_the_home_folder_and_never_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, ["a.jpg"])
    assert list_images(["~/a.jpg"]) == [f"{tmp_path}/a.jpg"]
    assert list_images(["~nobody-of-this-name.jpg"]) == ["~nobody-of-this-name.jpg"]


def test_a_name_longer_than_any_file_system_takes_stays_a_name() -> None:
    assert list_images(["x" * 5000]) == ["x" * 5000]
