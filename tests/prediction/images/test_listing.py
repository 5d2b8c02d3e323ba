"""`img=`: any file name reaches the config unchanged; folders, globs and lists resolve in a fixed order."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
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

from agegender.config.hydra_versions import version_base
from agegender.config.overrides import image_overrides
from agegender.errors import AgeGenderError
from agegender.prediction.images import listing
from agegender.prediction.images.listing import list_images, open_images
from agegender.prediction.images.live import LiveStream
from agegender.prediction.images.sources import FLUSH

# Valid file names, often of characters that are syntax to Hydra, OmegaConf or a glob.
SYNTAX = st.text(st.sampled_from("ab1.é \t\n'\"\\${}[](),=:;!~+-*?#@%&|<>"), min_size=1, max_size=12)
ANYTHING = st.text(min_size=1, max_size=12) | st.binary(min_size=1, max_size=12).map(os.fsdecode)
# `-` and `webcam` are reserved; `./-` is the file
NAMES = (SYNTAX | ANYTHING).filter(lambda name: name not in (".", "..", "-", "webcam") and not {"/", "\0"} & set(name))
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
    with initialize_config_dir(str(ROOT / "conf"), **version_base()):
        yield


def composed(*arguments: str) -> dict[str, Any]:
    """Returns the config of predict.py for a command line."""
    resolved = OmegaConf.to_container(compose("predict", image_overrides(arguments)), resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def make(folder: Path, names: list[str]) -> None:
    for name in names:
        try:
            (folder / name).touch()
        except (OSError, UnicodeEncodeError):  # invalid on this file system
            assume(False)


@pytest.mark.slow
@settings(max_examples=60)
@example(names=list(TRAPS))
@example(names=["\\${"])
@example(names=["'\\"])
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_image_overrides_preserve_any_file_name(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make(Path(folder), names)
        given_names = [f"img={name}" for name in names]
        assert list_images(composed(*given_names)["img"]) == names


@pytest.mark.slow
@settings(max_examples=30)
@example(names=list(TRAPS))
@given(names=st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_image_overrides_accept_names_without_img(names: list[str]) -> None:
    names = [name for name in names if not name.startswith(("-", "img="))]
    assume(names)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make(Path(folder), names)
        assert list_images(composed(*names, "batch_size=3")["img"]) == names


@settings(max_examples=6)
@given(name=NAMES.filter(lambda name: "," not in name and name[0] not in "['\""))
def test_image_overrides_preserve_the_name_of_a_missing_file(name: str) -> None:
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
def test_image_overrides_accept_several_images_in_every_usual_way(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["a.jpg", "b.jpg"])
    assert composed(*arguments)["img"] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("name", ["gone.jpg", "wieghts", "a b.jpg", "~/gone.jpg", "folder/"])
def test_image_overrides_refuse_a_bare_argument_that_does_not_exist(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AgeGenderError, match=rf"^{re.escape(name)} does not exist: .*name=value$") as refused:
        image_overrides(["batch_size=3", name])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["-", "webcam", "0", "http://127.0.0.1/a.jpg", "rtsp://127.0.0.1/a", "*.jpg"])
def test_image_overrides_take_bare_cameras_addresses_and_globs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert composed(name)["img"] == [name]


def test_image_overrides_take_a_file_with_the_name_of_a_setting_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["weights=other.ckpt", "age=3, or 4.jpg"])
    found = composed("weights=other.ckpt", "age=3, or 4.jpg", "img=*")
    assert found["img"] == ["weights=other.ckpt", "age=3, or 4.jpg", "*"] and found["weights"] == "default"


def test_image_overrides_prefer_an_existing_file_to_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["a.jpg", "b.jpg", "a.jpg,b.jpg", "[a.jpg,b.jpg]"])
    assert composed("img=a.jpg,b.jpg")["img"] == ["a.jpg,b.jpg"]
    assert composed("img=[a.jpg,b.jpg]")["img"] == ["[a.jpg,b.jpg]"]


def test_image_overrides_pass_settings_and_options_unchanged() -> None:
    settings_only = ["out=a/b.csv", "+extra=1", "~weights", "++device=cpu", "--cfg", "job", "--help", "-cn", "other"]
    assert image_overrides(settings_only) == settings_only


@pytest.mark.parametrize("argument", ["img=", "img=,", ""])
def test_image_overrides_drop_an_empty_name(argument: str) -> None:
    assert image_overrides([argument]) == []


def test_list_images_of_a_folder_are_its_images_recursively_sorted(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    pictures = ["B.JPG", "a.png", "sub/c.webp", "sub/deeper/d.Tiff", "z.chip.jpg"]
    make(tmp_path, [*pictures, "notes.txt", "faces.csv", "jpg", "sub/film.mp4", ".DS_Store", "a.jpg~"])
    assert list_images([str(tmp_path)]) == [str(tmp_path / name) for name in pictures]


def test_list_images_counts_what_is_left_out_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    pictures = ["IMG_1.HEIC", "IMG_2.heif", "sub/IMG_3.Jpg"]
    make(
        tmp_path,
        [*pictures, "IMG_1.MOV", "sub/IMG_3.MOV", "sub/IMG_4.MOV", "a.aae", "b.aae", "notes", "\x1b[2J.e\x1bx"],
    )
    assert list_images([str(tmp_path)]) == [str(tmp_path / name) for name in pictures]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"left out of {tmp_path}: 3 .MOV, 2 .aae, 1 .e\\x1bx, 1 without a suffix; "
        f"videos are read if they are named: img='{tmp_path}/**/*.MOV'"
    )
    named = list_images([f"{tmp_path}/**/*.MOV"])
    assert named == [str(tmp_path / name) for name in ("IMG_1.MOV", "sub/IMG_3.MOV", "sub/IMG_4.MOV")]
    assert capsys.readouterr().err == ""


def test_list_images_says_what_a_folder_without_images_holds(tmp_path: Path) -> None:
    make(tmp_path, ["a.MOV"])
    with pytest.raises(AgeGenderError, match=r"no image found .* \(left out of .*: 1 .MOV; videos are read .*\)$"):
        list_images([str(tmp_path)])


def test_list_images_sums_up_many_suffixes_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, ["a.jpg", *(f"a.{number}" for number in range(20)), f"b.{'x' * 200}"])
    assert list_images([str(tmp_path)]) == [str(tmp_path / "a.jpg")]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" and 13 further suffixes") and len(line) < len(str(tmp_path)) + 150


def test_list_images_is_silent_about_a_folder_of_images_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, ["a.jpg", "b.PNG"])
    list_images([str(tmp_path)])
    assert capsys.readouterr().err == ""


def test_list_images_of_a_glob_are_sorted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    make(tmp_path, ["b.jpg", "a.jpg", "c.png", "sub/d.jpg"])
    assert list_images([f"{tmp_path}/*.jpg"]) == [str(tmp_path / name) for name in ("a.jpg", "b.jpg")]
    assert list_images([f"{tmp_path}/**/*.jpg"]) == [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "sub/d.jpg")]


def test_list_images_of_a_glob_are_files_only(tmp_path: Path) -> None:
    (tmp_path / "sub.jpg").mkdir()
    make(tmp_path, ["b.jpg", "a.txt", "sub.jpg/c.jpg"])
    (tmp_path / "link.jpg").symlink_to("nowhere")
    files = [str(tmp_path / name) for name in ("a.txt", "b.jpg", "link.jpg")]
    assert list_images([f"{tmp_path}/*"]) == files
    assert list_images([f"{tmp_path}/**"]) == [*files, str(tmp_path / "sub.jpg" / "c.jpg")]
    with pytest.raises(AgeGenderError, match=r"no image found at img=.*/sub\*; give a file, .*, or a glob of files$"):
        list_images([f"{tmp_path}/sub*"])


def test_list_images_prefers_an_existing_file_to_a_glob(tmp_path: Path) -> None:
    make(tmp_path, ["photo1.jpg"])
    assert list_images([f"{tmp_path}/photo[1].jpg"]) == [str(tmp_path / "photo1.jpg")]
    make(tmp_path, ["photo[1].jpg"])
    assert list_images([f"{tmp_path}/photo[1].jpg"]) == [str(tmp_path / "photo[1].jpg")]


def test_list_images_keeps_the_given_order(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    make(tmp_path, ["z.jpg", "folder/m.jpg", "a.jpg"])
    names = [str(tmp_path / name) for name in ("z.jpg", "folder/m.jpg", "a.jpg")]
    assert list_images([names[0], str(tmp_path / "folder"), names[2]]) == names


@pytest.mark.parametrize("nothing", ["missing.jpg", "*.gif", "photo[2].jpg", "empty"])
def test_list_images_keeps_a_missing_name_among_others(nothing: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make(tmp_path, ["a.jpg"])
    names = [str(tmp_path / "a.jpg"), str(tmp_path / nothing)]
    assert list_images(names) == names


@pytest.mark.parametrize("nothing", ["*.gif", "empty"])
def test_list_images_refuses_an_empty_list_by_name(nothing: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AgeGenderError, match="no image found") as caught:
        list_images([str(tmp_path / nothing)])
    assert str(tmp_path / nothing) in str(caught.value)


def test_list_images_expands_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make(tmp_path, ["a.jpg"])
    assert list_images(["~/a.jpg"]) == [f"{tmp_path}/a.jpg"]
    assert list_images(["~nobody-of-this-name.jpg"]) == ["~nobody-of-this-name.jpg"]


def test_list_images_keeps_a_name_that_is_too_long() -> None:
    assert list_images(["x" * 5000]) == ["x" * 5000]


def test_list_images_accepts_any_name_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Meine Bücher, 日本 [1]"
    (folder / "sub ordner").mkdir(parents=True)
    make(folder, ["ä ö.jpg", "sub ordner/é,è.PNG"])
    assert list_images([str(folder)]) == [str(folder / "sub ordner/é,è.PNG"), str(folder / "ä ö.jpg")]


def test_list_images_searches_a_linked_folder_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    make(tmp_path, ["a.jpg", "sub/b.jpg"])
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    assert list_images([str(tmp_path)]) == [str(tmp_path / name) for name in ("a.jpg", "self.jpg", "sub/b.jpg")]


@pytest.mark.parametrize("closed", ["", "sub", "sub/deeper"])
def test_list_images_refuses_an_unlistable_folder(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    make(tmp_path, ["a.jpg", "sub/deeper/b.jpg"])
    scandir, denied = os.scandir, tmp_path / closed

    def refusing(path: Any) -> Any:
        if Path(path) == denied:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(AgeGenderError, match="can't be listed") as caught:
        list_images([str(tmp_path)])
    assert f"the folder {denied} can't be listed (Permission denied)" == str(caught.value)


ADDRESSES = ("http://127.0.0.1/a.jpg", "https://a.example/w_200,h_300/b.png?c=1&d=2,3", "http://a.example/film.mp4")


@pytest.mark.parametrize("address", ADDRESSES)
def test_image_overrides_preserve_urls(address: str) -> None:
    for argument in (address, f"img={address}"):
        assert list_images(composed(argument)["img"]) == [address]
    assert composed(f"img={ADDRESSES[1]},{ADDRESSES[0]}")["img"] == [ADDRESSES[1], ADDRESSES[0]]


def test_list_images_keeps_urls_and_the_camera_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["a.jpg", "webcam"])
    names = [ADDRESSES[0], "a.jpg", "webcam", *ADDRESSES[1:], "a.jpg"]
    found = list_images(composed(*names)["img"])
    assert found == names and [isinstance(name, LiveStream) for name in found] == [name == "webcam" for name in names]


def test_open_images_reads_a_globbed_file_with_a_reserved_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["-", "webcam"])
    assert opened(["[-w]*"]) == ["-", "webcam"]


# Names on standard input


def opened(given: list[str]) -> list[str]:
    """Returns the names of the images that are opened."""
    return [picture.path for picture in open_images(list_images(given), 1) if picture is not FLUSH]


def given_lines(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="ascii")  # independent of the terminal's encoding


@settings(max_examples=60)
@example(names=list(TRAPS), end=b"\r\n")
@given(names=st.lists(NAMES, min_size=1, max_size=5), end=st.sampled_from((b"\n", b"\r\n", b"\n\n", b"\n \n")))
def test_open_images_reads_one_name_per_line_of_standard_input(names: list[str], end: bytes) -> None:
    lines = [os.fsencode(name) for name in names if "\ud800" not in name]
    assume(all(line.strip() and b"\n" not in line and not line.endswith(b"\r") for line in lines) and lines)
    with pytest.MonkeyPatch.context() as patch:
        for last in (b"", end):
            patch.setattr(sys, "stdin", given_lines(end.join(lines) + last))
            assert opened(["-"]) == [os.fsdecode(line) for line in lines]


def test_open_images_keeps_the_order_around_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["a.jpg", "b.jpg"])
    monkeypatch.setattr(sys, "stdin", given_lines(b"\n *.jpg\n\nwebcam\r\n-\n"))
    monkeypatch.setattr(listing, "frames", lambda name, _: pytest.fail(f"{name} is no video"))
    names = composed("b.jpg", "img=-", "a.jpg")["img"]
    assert opened(names) == ["b.jpg", " *.jpg", "webcam", "-", "a.jpg"]


@pytest.mark.parametrize("stdin", [None, b"", b"\n\r\n  \n"])
def test_open_images_refuses_empty_standard_input(stdin: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None if stdin is None else given_lines(stdin))
    with pytest.raises(AgeGenderError, match="img=-"):
        opened(["-"])


def test_open_images_accepts_empty_standard_input_beside_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", given_lines(b""))
    assert opened(["a.jpg", "-"]) == ["a.jpg"]


@pytest.mark.parametrize("size", [1, 5, 8192])
def test_open_images_joins_the_pieces_of_a_piped_line(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.BytesIO):
        def read1(self, _: int | None = -1, /) -> bytes:
            return super().read1(size)

    names = [f"{number} {'x' * (number % 300)}.jpg" for number in range(400)]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe("\n".join(names).encode())))
    assert opened(["-"]) == names


@pytest.mark.parametrize("given", [b"", b"a.jpg\nb.jpg\nc", b"a.jpg\n"])
def test_open_images_flushes_before_it_waits_for_names(given: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with open(reader) as stdin, open(writer, "wb", buffering=0) as find:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", stdin)
        pictures = open_images(list_images(["-"]), 1)
        find.write(given)
        whole = given.decode().split("\n")[:-1]
        assert [next(pictures).path for _ in whole] == whole
        assert next(pictures) is FLUSH
        find.write(b"d.jpg\n")
        assert next(pictures).path == given.decode().split("\n")[-1] + "d.jpg"
        assert next(pictures) is FLUSH
        find.close()
        assert list(pictures) == []


def test_open_images_reads_a_redirected_file_without_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "names").write_text("a.jpg\nb.jpg\n")
    with (tmp_path / "names").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert [picture.path for picture in open_images(list_images(["-"]), 1)] == ["a.jpg", "b.jpg"]


def test_list_images_reaches_a_reserved_name_through_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, ["-", "webcam"])
    assert list_images(composed("img=./-", "./webcam")["img"]) == ["./-", "./webcam"]


def test_open_images_is_lazy(tmp_path: Path) -> None:
    names = [str(tmp_path / "missing.jpg"), str(tmp_path / "missing.mp4"), "http://127.0.0.1:9/a.jpg"]
    assert [picture.path for picture in open_images(names, 1)] == names
