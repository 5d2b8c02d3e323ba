"""Annotated images: legible at any size, without overlapping labels or overwritten files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, room_for
from helpers.made_predictions import FIVE, TWO, made
from helpers.made_runs import ETHNICITY
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from agegender.errors import AgeGenderError
from agegender.prediction.prediction import NO_FACE, Prediction
from agegender.prediction.predictor import ImageResult
from agegender.prediction.writers.annotate import AnnotatedImageFolder, draw, is_annotated
from agegender.tasks.info import UNSURE

Run = Callable[..., Outcome]
Box = tuple[float, float, float, float]
SIZES = ((20, 20), (1, 1), (64, 64), (30, 500), (3000, 7), (1, 3000), (640, 480), (360, 360), (4000, 3000))


def face(
    box: Sequence[float | None] = (None,) * 4, age: float = 104.0, p_female: float = 0.999, gender: str = "female"
) -> Prediction:
    """Returns a prediction with the longest label."""
    ages: dict[str, Any] = {"age": age, "age_std": 9.0, "age_low": 100.0, "age_high": 120.0}
    return made("a.jpg", 1, box, 0.9, **ages, p_female=p_female, gender=gender)


LABELED = (face(), face((0, 0, 1, 1)), Prediction("a", error=NO_FACE))


class Drawn:
    """Records the boxes, labels, texts and font sizes that were drawn."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.labels: list[Box] = []
        self.texts: list[Box] = []
        self.strings: list[str] = []
        self.letters: list[float] = []


@pytest.fixture(scope="module")
def drawn() -> Iterator[Drawn]:
    noted = Drawn()
    rectangle, text = ImageDraw.ImageDraw.rectangle, ImageDraw.ImageDraw.multiline_text

    def note_rectangle(self: ImageDraw.ImageDraw, box: Any, fill: Any = None, **options: Any) -> None:
        (noted.labels if fill else noted.boxes).append(tuple(box))
        rectangle(self, box, fill, **options)

    def note_text(self: ImageDraw.ImageDraw, place: Any, string: str, fill: Any, font: Any) -> None:
        noted.texts.append(self.multiline_textbbox(place, string, font))
        noted.strings.append(string)
        noted.letters.append(font.size)
        text(self, place, string, fill, font)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "rectangle", note_rectangle)
        patch.setattr(ImageDraw.ImageDraw, "multiline_text", note_text)
        yield noted


def draw_recorded(drawn: Drawn, size: tuple[int, int], predictions: Sequence[Prediction]) -> Image.Image:
    drawn.__init__()  # type: ignore[misc]
    return draw(Image.new("RGB", size, "white"), predictions, TWO)


def overlaps(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def contains(outer: Sequence[float], inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


@st.composite
def boxes(draw_from: st.DrawFn, size: tuple[int, int], most: int) -> list[Box]:
    sides = [st.tuples(st.floats(0, side), st.floats(0, side)).map(sorted) for side in size]
    several = draw_from(st.lists(st.tuples(*sides), min_size=1, max_size=most))
    return [(left, top, right, bottom) for (left, right), (top, bottom) in several]


# Labels


@settings(max_examples=25)
@given(data=st.data(), size=st.sampled_from(SIZES))
def test_labels_of_six_faces_stay_inside_and_do_not_overlap(
    data: st.DataObject, size: tuple[int, int], drawn: Drawn
) -> None:
    given_boxes = data.draw(boxes(size, 6))
    picture = draw_recorded(drawn, size, [face(box) for box in given_boxes])
    assert len(drawn.labels) == len(drawn.boxes) == len(given_boxes)
    for number, label in enumerate(drawn.labels):
        assert contains((0, 0, *picture.size), label) and contains(label, drawn.texts[number])
        assert not any(overlaps(label, other) for other in drawn.labels[:number])


@settings(max_examples=15)
@given(data=st.data())
def test_labels_of_twelve_faces_do_not_overlap_in_a_photograph(data: st.DataObject, drawn: Drawn) -> None:
    given_boxes = data.draw(boxes((1600, 1200), 12))
    draw_recorded(drawn, (1600, 1200), [face(box) for box in given_boxes])
    assert not any(overlaps(one, other) for number, one in enumerate(drawn.labels) for other in drawn.labels[:number])


@pytest.mark.parametrize("size", SIZES)
def test_label_of_an_isolated_face_touches_its_box(size: tuple[int, int], drawn: Drawn) -> None:
    wide = max(size) > 600
    thirds = [(size[0] * x / 10, size[1] * 0.4, size[0] * (x + 1) / 10, size[1] * 0.6) for x in (1, 7)[: 1 + wide]]
    picture = draw_recorded(drawn, size, [face(box) for box in thirds])
    for box, label in zip(drawn.boxes, drawn.labels, strict=True):
        assert overlaps((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), label) or min(size) < 30
    assert min(picture.size) >= 360 and max(picture.size) <= 4096


@pytest.mark.parametrize(
    ("size", "prediction"),
    [
        *((size, prediction) for size in SIZES for prediction in LABELED),
        ((70_000, 3), LABELED[0]),
        ((2, 66_000), LABELED[1]),
        ((65_501, 400), LABELED[2]),
    ],
)
def test_letters_are_legible_at_any_image_size(
    size: tuple[int, int], prediction: Prediction, drawn: Drawn, tmp_path: Path
) -> None:
    picture = draw_recorded(drawn, size, [prediction])
    assert drawn.letters == [max(14, round(min(picture.size) / 32))]
    if max(size) >= 4000:
        picture.save(tmp_path / "drawn.jpg")
    assert picture.width * picture.height <= max(360 * 65_500, size[0] * size[1])


def test_label_shows_an_unsure_gender_without_a_probability(drawn: Drawn) -> None:
    undecided = face((100, 100, 200, 220), p_female=0.54, gender=UNSURE)
    picture = draw_recorded(drawn, (640, 480), [face((300, 100, 400, 220)), undecided])
    assert drawn.strings == ["104 (100-120)\nfemale 100 %", "104 (100-120)\nunsure"]
    assert len(drawn.boxes) == 2 and all(contains((0, 0, *picture.size), label) for label in drawn.labels)


def test_label_has_a_line_for_each_task_that_stays_inside_the_image(drawn: Drawn) -> None:
    values: dict[str, Any] = {
        "age": 31.4,
        "p_female": 0.1,
        "gender": "male",
        "p_smile": 0.9,
        "smile": "yes",
        "height": 171.26,
    }
    long = replace(ETHNICITY, classes=("of a name that is longer than a line of a label", *ETHNICITY.classes[1:]))
    values |= dict.fromkeys(ETHNICITY.columns, 0.1) | {"p_White": 0.6, "ethnicity": long.classes[0]}
    tasks = (*FIVE[:-1], long)
    drawn.__init__()  # type: ignore[misc]
    picture = draw(Image.new("RGB", (20, 20), "white"), [made(box=(2, 2, 9, 9), tasks=tasks, **values)], tasks)
    assert drawn.strings == [
        "age: 31\ngender: male 90 %\nsmile: yes 90 %\nheight: 171.3\n"
        "ethnicity: of a name that is\nlonger than a line of a label\n60 %"
    ]
    assert contains((0, 0, *picture.size), drawn.labels[0]) and contains(drawn.labels[0], drawn.texts[0])


def test_label_of_a_long_reason_stays_inside_the_image(drawn: Drawn) -> None:
    picture = draw_recorded(drawn, (64, 64), [Prediction("a", error="faces can't be looked for: " + "reason " * 17)])
    assert contains((0, 0, *picture.size), drawn.labels[0]) and contains(drawn.labels[0], drawn.texts[0])


def test_draw_changes_neither_its_input_nor_pixels_far_from_a_face() -> None:
    picture = Image.effect_noise((800, 600), 80).convert("RGB")
    before = picture.tobytes()
    after = draw(picture, [face((10, 10, 60, 70)), face((30, 10, 90, 80))], TWO)
    assert picture.tobytes() == before and after.size == picture.size
    far = (400, 300, 800, 600)
    assert after.crop(far).tobytes() == picture.crop(far).tobytes() and after.tobytes() != before


def test_boxes_scale_with_an_enlarged_image(drawn: Drawn) -> None:
    for size, scale in (((72, 90), 5), ((720, 900), 1)):
        assert draw_recorded(drawn, size, [face((18, 9, 36, 45))]).size == (size[0] * scale, size[1] * scale)
        assert drawn.boxes == [pytest.approx((18 * scale, 9 * scale, 36 * scale, 45 * scale))]


# Files

HOSTILE = (
    "../../x",
    "a/b.jpg",
    "<b>.png",
    "y" * 300,
    "y" * 299,
    "日" * 300,
    "\N{MATHEMATICAL DOUBLE-STRUCK CAPITAL A}" * 300,
    "one/x.jpg",
    "two/x.png",
    "",
    ".",
)
MORE = (
    ".jpg",
    "..",
    "...",
    "a\0b",
    " ",
    "X.JPG",
    "con",
    "x_2.jpg",
    "~",
    "-",
    "$(x)",
    "a\nb",
    os.fsdecode(b"\xff\xfe.jpg"),
)
ADDRESSES = ("http://127.0.0.1/a/b.jpg?size=3&x=/etc/x", "http://127.0.0.1/", "clip.avi#t=0.50", "../clip.avi#t=0.50")
PATHS = st.sampled_from((*HOSTILE, *MORE, *ADDRESSES)) | st.text(max_size=9) | st.binary(max_size=9).map(os.fsdecode)
PICTURE = Image.new("RGB", (8, 8), "red")


def add(album: AnnotatedImageFolder, path: str, age: float = 30.0, picture: Image.Image | None = PICTURE) -> None:
    album.add(ImageResult(path, [face(age=age)], picture))


@settings(max_examples=6)
@example(paths=[*HOSTILE, *MORE, *ADDRESSES])
@given(paths=st.lists(PATHS, max_size=6, unique=True))
def test_album_writes_one_file_per_image_inside_the_folder(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as around:
        folder = Path(around, "in", "album")
        for _ in range(2):  # the second run replaces the files of the first only
            album = AnnotatedImageFolder(folder, TWO)
            for path in paths:
                add(album, path)
            assert [path for path in Path(around).rglob("*") if path.is_file()] == list(folder.iterdir())
            names = [path.name for path in folder.iterdir()]
            assert len({name.casefold() for name in names}) == len(paths)
            assert all(name.endswith(".jpg") and not name.startswith(".") and name.isprintable() for name in names)


def test_album_names_a_file_after_its_image(tmp_path: Path) -> None:
    album = AnnotatedImageFolder(tmp_path, TWO)
    for path in ("one/x.jpg", "two/x.jpg", "my photo (1).png", "http://127.0.0.1/a/b.jpg?size=3", "d/clip.avi#t=0.50"):
        add(album, path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"x.jpg", "x_2.jpg", "my photo (1).jpg", "b.jpg", "clip.avi_t_0.50.jpg"}


@pytest.mark.parametrize("content", ["picture", "text", "empty", "comment", "link", "link to nowhere", "folder"])
def test_album_never_overwrites_a_foreign_file(content: str, tmp_path: Path) -> None:
    folder, mine = tmp_path / "album", tmp_path / "album" / "x.jpg"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "theirs.jpg", comment=b"agegender" if content == "comment" else b"")
    if content == "folder":
        mine.mkdir()
    elif content.startswith("link"):
        mine.symlink_to("nowhere" if content.endswith("nowhere") else tmp_path / "theirs.jpg")
    else:
        theirs = (tmp_path / "theirs.jpg").read_bytes()
        mine.write_bytes({"text": b"mine", "empty": b""}.get(content, theirs))
    before = (mine.lstat(), mine.exists() and mine.is_file() and mine.read_bytes())
    for _ in range(2):
        add(AnnotatedImageFolder(folder, TWO), "x.jpg")
    assert (mine.lstat(), mine.exists() and mine.is_file() and mine.read_bytes()) == before
    assert {path.name for path in folder.iterdir()} == {"x.jpg", "x_2.jpg"}


def test_album_of_a_later_run_replaces_its_own_files_only(tmp_path: Path) -> None:
    add(AnnotatedImageFolder(tmp_path, TWO), "one/x.jpg")
    first = (tmp_path / "x.jpg").read_bytes()
    resumed = AnnotatedImageFolder(tmp_path, TWO)  # the first picture was done already
    add(resumed, "two/x.jpg")
    assert (tmp_path / "x.jpg").read_bytes() == first and (tmp_path / "x_2.jpg").exists()
    add(resumed, "one/x.jpg", age=50.0)
    assert (tmp_path / "x.jpg").read_bytes() != first
    assert len(list(tmp_path.iterdir())) == 2


def test_album_file_holds_no_path_of_its_image(tmp_path: Path) -> None:
    add(AnnotatedImageFolder(tmp_path, TWO), "/home/somebody/secret/x.jpg")
    assert b"secret" not in (tmp_path / "x.jpg").read_bytes()


def test_album_has_no_file_for_an_unreadable_image(tmp_path: Path) -> None:
    add(AnnotatedImageFolder(tmp_path, TWO), "x.jpg", picture=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "below a file", "below /proc", "name too long"])
def test_album_refuses_a_folder_that_can_not_be_created(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = {"file": "file", "below a file": "file/album", "below /proc": "/proc/album", "name too long": "x" * 300}
    with pytest.raises(AgeGenderError, match=r"annotate=.* can't be created \(.*\); use another folder$"):
        AnnotatedImageFolder(tmp_path / folder[kind], TWO)


def test_album_on_a_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    with room_for(500), pytest.raises(AgeGenderError, match=r"can't write .*x\.jpg \(File too large\)$"):
        add(AnnotatedImageFolder(tmp_path, TWO), "x.jpg")
    assert list(tmp_path.iterdir()) == []


# The command


def test_album_may_be_the_folder_of_the_images(faces: Path, trained_run: Path, run_here: Run, tmp_path: Path) -> None:
    album = tmp_path / "album"
    (album / "sub").mkdir(parents=True)
    for number, path in enumerate(sorted(faces.glob("*.jpg"))[:4]):
        (album / ("sub" if number % 2 else "") / f"{number // 2}.jpg").write_bytes(path.read_bytes())
    (album / "broken.jpg").write_bytes(b"no picture")
    before = {path: path.read_bytes() for path in album.rglob("*.jpg")}
    images = [str(path.relative_to(tmp_path)) for path in sorted(before)]
    for _ in range(2):
        outcome = run_here(
            "predict.py", *images, f"weights={trained_run}", "detect=never", "annotate=album", "out=-", "batch_size=2"
        )
        assert outcome.code == 1 and outcome.out.count("\n") == 5 and "1 of 5 images" in outcome.err
        after = {path: path.read_bytes() for path in album.rglob("*.jpg")}
        assert {path: after[path] for path in before} == before
        assert {path.name for path in set(after) - set(before)} == {"0_2.jpg", "0_3.jpg", "1_2.jpg", "1_3.jpg"}


@pytest.mark.parametrize(("img", "annotate"), [("ann", "ann/marked"), ("ann/**/*.jpg", "ann")])
def test_album_inside_the_folder_of_the_images_is_not_predicted(
    img: str, annotate: str, faces: Path, trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    (tmp_path / "ann").mkdir()
    for number, path in enumerate(sorted(faces.glob("*.jpg"))[:3]):
        (tmp_path / "ann" / f"{number}.jpg").write_bytes(path.read_bytes())
    command = ("predict.py", f"img={img}", f"weights={trained_run}", "detect=never", "out=-")
    first = run_here(*command, f"annotate={annotate}")
    drawn = {path: path.read_bytes() for path in (tmp_path / "ann").rglob("*.jpg")}
    assert first.code == 0 and first.out.count("\n") == 3 and len(drawn) == 6 and "left out" not in first.err
    for again in (command, (*command, f"annotate={annotate}")):
        outcome = run_here(*again)
        assert (outcome.code, outcome.out) == (0, first.out)
        assert f"left out of {img}: 3 annotated by an earlier run\n" in outcome.err
        assert {path: path.read_bytes() for path in (tmp_path / "ann").rglob("*.jpg")} == drawn
    named = next(path for path in drawn if is_annotated(str(path)))
    assert '"error": null' in run_here("predict.py", f"img={named}", *command[2:]).out


def test_is_annotated_recognizes_the_comment_only(tmp_path: Path) -> None:
    add(AnnotatedImageFolder(tmp_path, TWO), "x.jpg")
    PICTURE.save(tmp_path / "plain.jpg")
    PICTURE.save(tmp_path / "other.jpg", comment=b"agegender is a program that I like")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("nowhere")
    (tmp_path / "empty.jpg").touch()
    assert [path.name for path in sorted(tmp_path.iterdir()) if is_annotated(str(path))] == ["x.jpg"]


def test_album_holds_every_readable_image_with_detection(
    faces: Path, trained_run: Path, run_here: Run, tmp_path: Path
) -> None:
    Image.new("RGB", (50, 40), "green").save(tmp_path / "nobody.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    images = (str(min(faces.glob("*.jpg"))), "nobody.png", "broken.png")
    outcome = run_here("predict.py", *images, f"weights={trained_run}", "annotate=a/new folder", "out=-")
    assert outcome.code == 1 and f'"error": "{NO_FACE}"' in outcome.out
    drawings = sorted((tmp_path / "a" / "new folder").iterdir())
    assert [path.name for path in drawings] == [f"{min(faces.glob('*.jpg')).stem}.jpg", "nobody.jpg"]
    for path in drawings:
        with Image.open(path) as picture:
            assert min(picture.size) >= 360
