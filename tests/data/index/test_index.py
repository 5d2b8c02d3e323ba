"""The index of a folder: parsed names, quarantined files and a reproducible split."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.hostile import BOMBS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from agegender.data.index.index import FaceIndex, build_index
from agegender.data.index.utkface import FaceLabels, QuarantinedNameError, has_utkface_files, parse_name
from agegender.data.sources import synthetic
from agegender.data.sources.synthetic import generate_faces
from agegender.errors import AgeGenderError

STAMP = "20170116172819213"
SUFFIXES = (".jpg", ".jpg.chip.jpg", ".jpeg", ".png", ".webp", ".bmp", " .jpg", "jpg.chip.jpg", ".JPG", ".Jpg.Chip.Jpg")


@pytest.fixture(scope="module")
def odd_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the shared one, but of UTKFace's size: a pixel's shift of 64 x 64 pixels is no near copy."""
    return generate_faces(tmp_path_factory.mktemp("faces") / "odd", 60, seed=2, size=200, odd_files=True)


@pytest.fixture(scope="module")
def odd_index(odd_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceIndex:
    return build_index(odd_faces, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(faces: Path, tmp_path: Path) -> Path:
    """A copy of the drawn faces, to change at will."""
    return Path(shutil.copytree(faces, tmp_path / "faces"))


@pytest.fixture(scope="module")
def plain_index(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceIndex:
    return build_index(faces, tmp_path_factory.mktemp("cache"))


def _sides(index: FaceIndex) -> dict[str, str]:
    """Returns on which side each picture lies; pictures are told apart by content."""
    return dict(zip(index.digests, index.split.tolist(), strict=True))


def _gray_jpeg(level: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (16, 16), level).save(content, format="JPEG")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("26_1_2_20170116172819213.jpg.chip.jpg", (26, 1, 2)),
        ("26_1_2_20170116172819213.jpg", (26, 1, 2)),
        ("1_0_4_20170116172819213.jpg.chip.jpg", (1, 0, 4)),
        ("116_1_0_20170116172819213.jpg.chip.jpg", (116, 1, 0)),
        ("24_0_1_20170116220224657 .jpg", (24, 0, 1)),
        ("55_0_0_20170116232725357jpg.chip.jpg", (55, 0, 0)),
        ("31_1_2_2017011622022465.jpg.chip.jpg", (31, 1, 2)),
        ("47_0_3_201701162202246570.jpg.chip.jpg", (47, 0, 3)),
    ],
)
def test_utkface_names_without_ambiguity_are_parsed(name: str, label: tuple[int, int, int]) -> None:
    assert parse_name(name) == FaceLabels(*label)


@pytest.mark.parametrize("name", [name for name in synthetic.QUARANTINED if name.count("_") == 2])
@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_name_that_lacks_a_field_is_refused(name: str, suffix: str) -> None:
    name = name.removesuffix(".jpg.chip.jpg") + (suffix or ".jpg.chip.jpg")
    with pytest.raises(QuarantinedNameError, match="a field is missing"):
        parse_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"121_0_0_{STAMP}.jpg", r"age 121 outside 0\.\.120"),
        (f"999_0_0_{STAMP}.jpg", r"age 999 outside 0\.\.120"),
        (f"30_3_0_{STAMP}.jpg", r"gender 3 outside \{0, 1\}"),
        (f"30_2_0_{STAMP}.jpg", r"gender 2 outside \{0, 1\}"),
        (f"30_1_5_{STAMP}.jpg", r"race 5 outside 0\.\.4"),
        (f"30_1_0_{STAMP}.txt", "not an image file"),
        (f"30_1_0_{STAMP}", "not an image file"),
        ("notes.txt", "not an image file"),
        ("", "not an image file"),
        ("holiday.jpg", "the name is not"),
        (f"-3_1_0_{STAMP}.jpg", "the name is not"),
        (f"3.5_1_0_{STAMP}.jpg", "the name is not"),
        (f"1000_1_0_{STAMP}.jpg", "the name is not"),
        (f"30_11_0_{STAMP}.jpg", "the name is not"),
        (f"30_1_0_{STAMP}_copy.jpg", "the name is not"),
        (f"30_1_0_{STAMP} (1).jpg", "the name is not"),
        (f"._30_1_0_{STAMP}.jpg", "the name is not"),
        ("30_1_0_.jpg", "the name is not"),
    ],
)
def test_name_is_refused_with_its_reason(name: str, reason: str) -> None:
    with pytest.raises(QuarantinedNameError, match=reason):
        parse_name(name)


@pytest.mark.parametrize(("age", "taken"), [(17, False), (18, True), (40, True), (41, False)])
def test_both_ends_of_the_age_range_are_taken(age: int, taken: bool) -> None:
    name = f"{age}_0_0_{STAMP}.jpg"
    if taken:
        assert parse_name(name, age_range=(18, 40)).age == age
    else:
        with pytest.raises(QuarantinedNameError, match=rf"age {age} outside 18\.\.40"):
            parse_name(name, age_range=(18, 40))


@given(
    age=st.integers(0, 120),
    gender=st.integers(0, 1),
    group=st.integers(0, 4),
    stamp=st.text("0123456789", min_size=1, max_size=20),
    suffix=st.sampled_from(SUFFIXES),
)
@settings(max_examples=40)
def test_any_valid_name_is_read_back(age: int, gender: int, group: int, stamp: str, suffix: str) -> None:
    assert parse_name(f"{age}_{gender}_{group}_{stamp}{suffix}") == FaceLabels(age, gender, group)


@given(st.text() | st.from_regex(r"\A[0-9_]{0,12}[._ a-z0-9]{0,8}(jpg|png)\Z"))
@example("30_1_0_2017\n.jpg")
@example("30_1_0_\udcff.jpg")
@example("٣٠_1_0_20170116172819213.jpg")
@settings(max_examples=80)
def test_name_of_arbitrary_text_is_parsed_or_quarantined(text: str) -> None:
    try:
        label = parse_name(text)
    except QuarantinedNameError:
        return
    else:
        assert 0 <= label.age <= 120 and label.gender in (0, 1) and 0 <= label.group <= 4


@given(
    place=st.integers(0, 3),
    digit=st.characters(categories=["Nd", "No", "Nl"]).filter(lambda character: not character.isascii()),
)
@settings(max_examples=40)
def test_digits_of_other_scripts_are_refused(place: int, digit: str) -> None:
    fields = ["3", "1", "2", STAMP]
    fields[place] = digit
    with pytest.raises(QuarantinedNameError):
        parse_name("_".join(fields) + ".jpg")


def test_every_odd_file_is_read_or_quarantined_for_its_own_reason(odd_index: FaceIndex) -> None:
    assert set(synthetic.ODD_READABLE) <= set(odd_index.names)
    assert set(synthetic.duplicates(60, 2)) <= set(odd_index.names)
    assert len(odd_index.names) == 60 + len(synthetic.ODD_READABLE) + 2
    reasons = dict(odd_index.quarantine)
    missing = "a field is missing; which one can't be known"
    assert reasons.pop("28_1_4_20170116220224660.jpg.chip.jpg").startswith("damaged: image file is truncated")
    assert reasons == {
        "39_1_20170116174525125.jpg.chip.jpg": missing,
        "61_1_20170109142408075.jpg.chip.jpg": missing,
        "61_1_20170109150557335.jpg.chip.jpg": missing,
        "140_0_0_20170116220224658.jpg.chip.jpg": "age 140 outside 0..120",
        "30_3_0_20170116220224659.jpg.chip.jpg": "gender 3 outside {0, 1}",
        "52_0_0_20170116220224661.jpg.chip.jpg": "an empty file",
        "notes.txt": "not an image file",
        "nested": "a sub-folder; images are read from the folder itself only",
    }


def test_file_with_an_image_suffix_only_is_quarantined(folder: Path, tmp_path: Path) -> None:
    (folder / f"30_1_0_{STAMP}.jpg").write_bytes(b"<html>not found</html>")
    (folder / f"31_1_0_{STAMP}.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / f"32_1_0_{STAMP}.jpg").mkdir()
    index = build_index(folder, tmp_path / "cache")
    assert len(index.names) == 120
    assert index.quarantine == {
        f"30_1_0_{STAMP}.jpg": "not a picture that can be read",
        f"31_1_0_{STAMP}.jpg": "can't be read: No such file or directory",
        f"32_1_0_{STAMP}.jpg": "a sub-folder; images are read from the folder itself only",
    }


def test_image_bombs_are_quarantined_and_the_others_indexed(folder: Path, tmp_path: Path) -> None:
    for age, bomb in enumerate(BOMBS.values(), start=20):
        (folder / f"{age}_1_0_{STAMP}.jpg").write_bytes(bomb)
    index = build_index(folder, tmp_path / "cache")
    assert len(index.names) == 120 and len(index.quarantine) == len(BOMBS)
    assert index.quarantine[f"20_1_0_{STAMP}.jpg"] == "more than 178,956,970 pixels"


def test_index_lists_every_readable_file_with_its_labels(plain_index: FaceIndex, faces: Path) -> None:
    assert plain_index.names == sorted(path.name for path in faces.iterdir())
    labels = [parse_name(name) for name in plain_index.names]
    assert {name: column.tolist() for name, column in plain_index.labels.items()} == {
        name: [getattr(label, name) for label in labels] for name in ("age", "gender", "group")
    }
    assert plain_index.quarantine == {}


def test_age_range_quarantines_ages_outside(faces: Path, tmp_path: Path) -> None:
    index = build_index(faces, tmp_path, age_range=(18, 60))
    assert index.labels["age"].min() >= 18 and index.labels["age"].max() <= 60
    outside = {path.name for path in faces.iterdir() if not 18 <= parse_name(path.name).age <= 60}
    assert outside and set(index.quarantine) == outside


def test_strict_refuses_a_quarantined_file_in_one_line(odd_faces: Path, tmp_path: Path) -> None:
    with pytest.raises(AgeGenderError, match=r"data\.strict=true and 9 of the files") as caught:
        build_index(odd_faces, tmp_path, strict=True)
    message = str(caught.value)
    assert "140_0_0_20170116220224658.jpg.chip.jpg" in message and "data.strict=false" in message
    assert str(odd_faces) in message and "\n" not in message


def test_strict_accepts_a_folder_without_quarantined_files(faces: Path, plain_index: FaceIndex, tmp_path: Path) -> None:
    assert build_index(faces, tmp_path, strict=True).fingerprint == plain_index.fingerprint


def test_strict_refuses_an_unreadable_file(folder: Path, tmp_path: Path) -> None:
    (folder / f"30_1_0_{STAMP}.jpg").touch()
    with pytest.raises(AgeGenderError, match=r"1 of the files .* an empty file"):
        build_index(folder, tmp_path / "cache", strict=True)


def test_index_error_names_the_subfolder_that_holds_images(faces: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(faces, outer / "UTKFace")
    with pytest.raises(AgeGenderError, match=r"data\.dir=") as caught:
        build_index(outer, tmp_path / "cache")
    assert str(caught.value).endswith(f"set data.dir={outer / 'UTKFace'}")


def test_folder_without_faces_is_an_error_with_the_expected_layout(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").touch()
    with pytest.raises(AgeGenderError, match=r"no UTKFace-named image .*data\.dir must be the folder"):
        build_index(tmp_path / "holiday", tmp_path / "cache")


def test_holds_faces_ignores_subfolders(faces: Path, odd_faces: Path, tmp_path: Path) -> None:
    assert has_utkface_files(faces) and has_utkface_files(odd_faces)
    shutil.copytree(odd_faces / "nested", tmp_path / "outer" / "inner")
    assert not has_utkface_files(tmp_path / "outer")


@pytest.mark.parametrize("split_seed", range(12))
def test_duplicates_never_straddle_the_split(odd_faces: Path, odd_index: FaceIndex, split_seed: int) -> None:
    cache_dir = odd_faces.parent / "cache"  # one reading for all seeds
    index = build_index(odd_faces, cache_dir, split_seed=split_seed, test_fraction=0.4, val_fraction=0.4)
    place = {name: i for i, name in enumerate(index.names)}
    for copy, original in synthetic.duplicates(60, 2).items():
        assert index.duplicates[place[copy]] == index.duplicates[place[original]] < len(index.names)
        assert index.split[place[copy]] == index.split[place[original]]


def test_near_copy_straddles_some_split_without_the_duplicate_search(odd_faces: Path, tmp_path: Path) -> None:
    """Without this, the test above could pass by luck."""
    (exact, exact_of), (near, near_of) = synthetic.duplicates(60, 2).items()
    apart = set()
    for split_seed in range(12):
        index = build_index(
            odd_faces, tmp_path, split_seed=split_seed, duplicates="exact", test_fraction=0.4, val_fraction=0.4
        )
        side = dict(zip(index.names, index.split.tolist(), strict=True))
        assert side[exact] == side[exact_of]
        apart.add(side[near] != side[near_of])
    assert True in apart


def test_duplicates_none_gives_every_image_its_own_group(odd_faces: Path, tmp_path: Path) -> None:
    index = build_index(odd_faces, tmp_path, duplicates="none")
    assert index.duplicates.tolist() == list(range(len(index.names)))


def _new_stamps(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.iterdir(), key=lambda path: path.read_bytes())):
        age, gender, group = path.name.split("_")[:3]
        path.rename(folder / f"{age}_{gender}_{group}_1999010100000{number:04d}.png")


def _new_labels(folder: Path) -> None:
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        path.rename(folder / f"{number % 100}_{number % 2}_0_{number:017d}.jpg")


def _new_dates(folder: Path) -> None:
    for number, path in enumerate(folder.iterdir()):
        os.utime(path, (number, number))


@pytest.mark.parametrize("change", [_new_stamps, _new_labels, _new_dates])
def test_split_does_not_depend_on_file_names_or_dates(
    folder: Path, tmp_path: Path, plain_index: FaceIndex, change: Callable[[Path], None]
) -> None:
    change(folder)
    index = build_index(folder, tmp_path / "cache")
    assert _sides(index) == _sides(plain_index)
    assert index.fingerprint == plain_index.fingerprint


def test_split_does_not_depend_on_the_directory_order(
    faces: Path, tmp_path: Path, plain_index: FaceIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backwards:
        def __init__(self, folder: Path) -> None:
            with list_files(folder) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            return

    list_files = os.scandir
    monkeypatch.setattr(os, "scandir", Backwards)
    index = build_index(faces, tmp_path)
    assert index.names == plain_index.names and index.split.tolist() == plain_index.split.tolist()


@pytest.mark.parametrize("kept", [70, 100])
def test_split_does_not_depend_on_unrelated_files(
    folder: Path, tmp_path: Path, plain_index: FaceIndex, kept: int
) -> None:
    for path in sorted(folder.iterdir(), key=lambda path: path.read_bytes())[kept:]:
        path.unlink()
    few = _sides(build_index(folder, tmp_path / "cache"))
    assert len(few) == kept and few.items() <= _sides(plain_index).items()
    (folder / "readme.txt").touch()
    (folder / f"150_0_0_{STAMP}.jpg").write_bytes(_gray_jpeg(9))
    assert _sides(build_index(folder, tmp_path / "cache")) == few


def test_split_seed_changes_the_split(faces: Path, tmp_path: Path, plain_index: FaceIndex) -> None:
    other = build_index(faces, tmp_path, split_seed=1)
    assert other.fingerprint != plain_index.fingerprint
    moved = np.mean(other.split != plain_index.split)
    assert 0.2 < moved < 0.7  # independent draws of 72 / 8 / 20 % differ in about 43 %


def test_split_file_decides_the_split(faces: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in faces.iterdir())
    protocol = tmp_path / "protocol.csv"
    sides = ["train", "val", "test"]
    protocol.write_text("file,split\n" + "".join(f"x/{name},{sides[i % 3]}\n" for i, name in enumerate(names[:90])))
    index = build_index(faces, tmp_path / "cache", split_file=protocol)
    assert index.split.tolist() == [sides[i % 3] if i < 90 else "unused" for i in range(120)]
    assert sum(len(index.rows(side)) for side in sides) == 90  # unlisted images are in no split


def test_split_file_may_name_a_file_that_was_quarantined(odd_faces: Path, tmp_path: Path) -> None:
    protocol = tmp_path / "protocol.csv"
    names = sorted(path.name for path in odd_faces.iterdir() if path.suffix == ".jpg")
    protocol.write_text(
        "file,split\n" + "".join(f"{name},{('train', 'test')[i % 2]}\n" for i, name in enumerate(names))
    )
    index = build_index(odd_faces, tmp_path / "cache", split_file=protocol, val_fraction=0.3)
    assert len(index.quarantine) == 9 and "unused" not in index.split


def test_index_csv_lists_every_file_with_split_and_duplicate_group(odd_index: FaceIndex, tmp_path: Path) -> None:
    odd_index.write_csv(tmp_path / "index.csv")
    with (tmp_path / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert list(rows) == odd_index.names
    assert [rows[name]["split"] for name in odd_index.names] == odd_index.split.tolist()
    assert [int(rows[name]["age"]) for name in odd_index.names] == odd_index.labels["age"].tolist()
    for copy, original in synthetic.duplicates(60, 2).items():
        assert rows[copy]["duplicate_group"] == rows[original]["duplicate_group"] == min(copy, original)


def test_quarantine_csv_lists_every_file_with_its_reason(odd_index: FaceIndex, tmp_path: Path) -> None:
    odd_index.write_quarantine(tmp_path / "quarantine.csv")
    with (tmp_path / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        assert {row["file"]: row["reason"] for row in csv.DictReader(file)} == odd_index.quarantine


def test_quarantine_csv_lists_a_name_that_is_not_utf8(folder: Path, tmp_path: Path) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    index = build_index(folder, tmp_path / "cache")
    index.write_quarantine(tmp_path / "quarantine.csv")
    assert r"caf\udce9.jpg" in (tmp_path / "quarantine.csv").read_text(encoding="utf-8")


def test_file_manager_leftovers_are_ignored(faces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    shutil.copytree(faces, folder)
    for name in (".DS_Store", "Thumbs.db", "._1_0_0_20170101000000000.jpg"):
        (folder / name).write_bytes(b"x")
    assert build_index(folder, tmp_path / "cache", strict=True).quarantine == {}
