"""Image decoding: every readable image gives RGB pixels, every other one `UnreadableImageError` with a reason."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, STORED
from helpers.hostile import BOMBS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import ImageSource, UnreadableImageError, eval_transform, read_image

ORIENTATION = 0x0112  # EXIF's tag


def _corners() -> Image.Image:
    """Returns a 60 x 40 picture whose four quarters are red, green, blue and white."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:, :30], pixels[20:, 30:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    return Image.fromarray(pixels)


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format=form, **options)
    return content.getvalue()


def _read(content: bytes) -> NDArray[np.uint8]:
    image = read_image(content)
    assert image.mode == "RGB"
    return np.asarray(image)


def _close(read: NDArray[np.uint8], expected: Image.Image, most: float = 6) -> bool:
    other = np.asarray(expected.convert("RGB"), dtype=int)
    return read.shape == other.shape and float(np.abs(read.astype(int) - other).mean()) < most


def _heic(brands: bytes = b"heic\0\0\0\0mif1heicmiaf") -> bytes:
    return (8 + len(brands)).to_bytes(4) + b"ftyp" + brands + bytes(100)


@pytest.mark.parametrize("as_path", [True, False])
@pytest.mark.parametrize("name", ["IMG_1.HEIC", "IMG_1.jpg"])
def test_read_image_names_the_extra_for_heic(
    name: str, as_path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (path := tmp_path / name).write_bytes(_heic())
    needed = r'an HEIC image needs a package that is missing \(pillow_heif\): pip install "agegender\[heic\]", or in'
    with pytest.raises(UnreadableImageError, match=f"^{needed}"):
        read_image(path if as_path else path.read_bytes())


@pytest.mark.parametrize(
    "content",
    [_heic(b"avif\0\0\0\0mif1miafMA1B"), _heic(b"isom\0\0\0\0isomiso2avc1mp41"), _heic(b""), _heic()[:9], b"ftyp"],
)
def test_read_image_takes_other_containers_for_no_heic(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(content)
    assert "HEIC" not in str(caught.value)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_read_image_reads_heic_upright_by_content(brand: bytes, tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = _encoded(_corners().transpose(Image.Transpose.ROTATE_90), "HEIF", exif=exif.tobytes(), quality=95)
    content = content[:8] + brand + content[12:]
    (path := tmp_path / "IMG_1.jpg").write_bytes(content)
    for source in (content, path, io.BytesIO(content)):
        assert _close(np.asarray(read_image(source)), _corners())
    for kept in (0.05, 0.3, 0.7, 0.99):
        with pytest.raises(UnreadableImageError):
            read_image(content[: int(kept * len(content))])


def test_read_image_reads_a_stream_that_can_not_seek() -> None:
    class Stream(io.BytesIO):
        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    assert _close(np.asarray(read_image(Stream(_encoded(_corners(), "PNG")))), _corners())


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, form: str) -> None:
    turn = STORED[orientation]
    stored = _corners() if turn is None else _corners().transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert _close(_read(_encoded(stored, form, exif=exif)), _corners())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning", "ignore:Truncated File Read:UserWarning")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0", b"junk"])
def test_damaged_exif_leaves_the_image_readable(exif: bytes) -> None:
    assert _close(_read(_encoded(_corners(), "JPEG", exif=exif)), _corners())


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGB"), ("BMP", "RGB"), ("PNG", "P"), ("PNG", "L"), ("GIF", "P")])
def test_lossless_image_is_read_exactly(form: str, mode: str) -> None:
    image = _noise().convert(mode) if mode != "P" else _noise().quantize(200)
    assert (_read(_encoded(image, form)) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colors(form: str) -> None:
    assert _close(_read(_encoded(_corners().convert("CMYK"), form)), _corners())


def test_bilevel_image_is_black_and_white() -> None:
    image = Image.fromarray(np.eye(16, dtype=bool))
    assert image.mode == "1"
    assert (_read(_encoded(image, "PNG")) == np.where(np.eye(16, dtype=bool), 255, 0)[..., None]).all()


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_alpha_is_composited_on_white(alpha: int) -> None:
    expected = (np.array([200, 40, 0]) * alpha + 255 * (255 - alpha)) / 255
    read = _read(_encoded(Image.new("RGBA", (8, 8), (200, 40, 0, alpha)), "PNG"))
    assert np.abs(read - expected).max() <= 1


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_gray_alpha_is_composited_on_white(alpha: int) -> None:
    expected = (100 * alpha + 255 * (255 - alpha)) / 255
    read = _read(_encoded(Image.new("LA", (8, 8), (100, alpha)), "PNG"))
    assert read.shape == (8, 8, 3) and np.abs(read - expected).max() <= 1


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_palette_transparency_becomes_white(form: str) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 200, 40, 0])
    image.paste(1, (4, 0, 8, 8))
    read = _read(_encoded(image, form, transparency=0))
    assert (read[:, :4] == 255).all() and (read[:, 4:] == (200, 40, 0)).all()


def test_gray_transparency_without_an_alpha_channel_becomes_white() -> None:
    image = Image.fromarray(np.array([[7, 99]], np.uint8))
    assert _read(_encoded(image, "PNG", transparency=7)).tolist() == [[[255] * 3, [99] * 3]]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_pixels_are_scaled_not_clipped(form: str) -> None:
    ramp = np.array([[0, 256, 257, 5_140, 32_896, 65_535]], np.uint16)
    image = Image.fromarray(ramp)
    assert image.mode == "I;16"
    assert _read(_encoded(image, form))[0, :, 0].tolist() == [0, 0, 1, 20, 128, 255]


def test_thirty_two_bit_pixels_are_read_only_if_they_fit_sixteen_bits() -> None:
    fits = Image.fromarray(np.array([[0, 65_535]], np.int32))
    assert _read(_encoded(fits, "TIFF"))[0, :, 0].tolist() == [0, 255]
    for value in (-1, 65_536):
        beyond = Image.fromarray(np.array([[0, value]], np.int32))
        with pytest.raises(UnreadableImageError, match="32-bit integer"):
            read_image(_encoded(beyond, "TIFF"))


def test_float_pixels_are_refused() -> None:
    content = _encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(UnreadableImageError, match="32-bit float"):
        read_image(content)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_animation_is_read_as_its_first_frame(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue", "lime")]
    content = _encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    assert _close(_read(content), frames[0])


def test_read_image_gives_the_same_pixels_for_every_source_type(tmp_path: Path) -> None:
    content = _encoded(_noise(), "JPEG")
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with path.open("rb") as file, Image.open(path) as opened:
        sources: list[ImageSource] = [str(path), path, content, io.BytesIO(content), file, opened]
        pictures = [read_image(source) for source in sources]
    assert len({picture.tobytes() for picture in pictures}) == 1


def test_read_image_turns_a_pil_image_upright_without_changing_it() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored = Image.open(io.BytesIO(_encoded(_corners().transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)))
    assert _close(np.asarray(read_image(stored)), _corners())
    assert stored.size == (40, 60)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_truncated_image_is_unreadable(form: str, kept: float) -> None:
    content = _encoded(_noise().resize((80, 80)), form)
    assert _read(content).shape == (80, 80, 3)
    with pytest.raises(UnreadableImageError):
        read_image(content[: int(len(content) * kept)])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.jpg", "no such file"),
        (".", "a folder, not a picture"),
        ("empty.jpg", "not a picture that can be read"),
        ("pipe.jpg", "a pipe or a device, not a file"),  # nobody writes into it: to open it would take for ever
        ("to the pipe.jpg", "a pipe or a device, not a file"),
        ("loop.jpg", "a link that leads round in a circle"),
        ("loop.jpg/x.jpg", "a link that leads round in a circle"),
        ("nowhere.jpg", "no such file"),
    ],
)
def test_read_image_reports_why_a_path_is_unreadable(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    for link, to in (("to the pipe.jpg", "pipe.jpg"), ("loop.jpg", "loop.jpg"), ("nowhere.jpg", "nowhere")):
        (tmp_path / link).symlink_to(to)
    for path in (tmp_path / name, str(tmp_path / name)):
        with pytest.raises(UnreadableImageError, match=f"^{reason}$"):
            read_image(path)


def test_empty_image_is_unreadable() -> None:
    with pytest.raises(UnreadableImageError, match="without pixels"):
        read_image(Image.new("RGB", (0, 5)))


def test_decompression_bomb_is_refused_before_decompression() -> None:
    side = 30_000  # 900 million pixels behind a hundred bytes

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 50)) + chunk(b"IEND", b"")
    with pytest.raises(UnreadableImageError, match="more than 178,956,970 pixels"):
        read_image(content)


def test_large_image_below_the_limit_is_read_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # warnings are errors in these tests
    assert _read(_encoded(_noise(), "PNG")).shape == (24, 32, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 383)
    with pytest.raises(UnreadableImageError, match="more than 766 pixels"):
        read_image(_encoded(_noise(), "PNG"))


@given(
    start=st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]),
    body=st.binary(),
)
@settings(max_examples=150)
def test_read_image_of_arbitrary_bytes_raises_only_unreadable(start: bytes, body: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
        try:
            image = read_image(start + body)
        except UnreadableImageError:
            return
    assert image.mode == "RGB" and min(image.size) > 0


@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=60)
def test_read_image_of_a_damaged_image_raises_only_unreadable(form: str, changes: list[tuple[float, int]]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = bytearray(_encoded(_noise(), form, **({} if form in ("GIF", "BMP") else {"exif": exif})))
    for place, value in changes:
        content[int(place * len(content))] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
        try:
            image = read_image(bytes(content))
        except UnreadableImageError as error:
            message = str(error)
        else:
            assert image.mode == "RGB" and min(image.size) > 0
            return
    assert message and "\n" not in message and len(message) < 200


@pytest.mark.parametrize("size", [8, 32, 100])
@pytest.mark.parametrize(("grayscale", "channels"), [(True, 1), (False, 3)])
@pytest.mark.parametrize("sides", [(1, 1), (60, 40), (7, 300), (200, 200)])
def test_eval_transform_gives_the_requested_size_and_channels(
    size: int, grayscale: bool, channels: int, sides: tuple[int, int]
) -> None:
    pixels = eval_transform(Image.new("RGB", sides, (10, 200, 60)), size, grayscale)
    assert pixels.shape == (size, size, channels) and pixels.dtype == np.uint8
    expected = [round(0.299 * 10 + 0.587 * 200 + 0.114 * 60)] if grayscale else [10, 200, 60]
    assert np.abs(pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("wide", [True, False])
def test_eval_transform_crops_the_centered_square(wide: bool) -> None:
    square = _noise().resize((32, 32))
    oblong = Image.new("RGB", (64, 32), "red")
    oblong.paste(square, (16, 0))
    upright = oblong if wide else oblong.transpose(Image.Transpose.TRANSPOSE)
    expected = square if wide else square.transpose(Image.Transpose.TRANSPOSE)
    for grayscale in (True, False):
        assert (eval_transform(upright, 32, grayscale) == eval_transform(expected, 32, grayscale)).all()
        inner = slice(1, -1)  # the filter sees a little of what lies beside the square
        cut, whole = (eval_transform(image, 20, grayscale)[inner, inner] for image in (upright, expected))
        assert np.abs(cut.astype(int) - whole).max() <= 1


def test_eval_transform_keeps_pixels_of_the_requested_size() -> None:
    square = _noise().resize((32, 32))
    assert (eval_transform(square, 32, grayscale=False) == np.asarray(square)).all()
    assert (eval_transform(square, 32, grayscale=True)[..., 0] == np.asarray(square.convert("L"))).all()


def test_eval_transform_averages_when_it_shrinks() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = eval_transform(Image.fromarray(stripes), 8, grayscale=True)
    assert np.abs(pixels.astype(int) - 128).max() < 8


@pytest.mark.parametrize("kind", BOMBS)
def test_image_bomb_of_any_kind_is_refused(kind: str) -> None:
    assert len(BOMBS[kind]) < 500_000
    with pytest.raises(UnreadableImageError):
        read_image(BOMBS[kind])


def test_image_bombs_use_less_than_100_mb() -> None:
    code = """
import resource
from helpers.hostile import BOMBS
from agegender.data.decode import UnreadableImageError, read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for bomb in BOMBS.values():
    try:
        read_image(bomb)
    except UnreadableImageError:
        continue
    raise SystemExit("taken")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)
"""
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100  # MB


def test_eps_image_is_refused_without_starting_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    started: list[object] = []
    for name in ("Popen", "run", "check_call", "check_output", "call"):
        monkeypatch.setattr(subprocess, name, lambda *command, **_: started.append(command))
    with pytest.raises(UnreadableImageError, match="EPS is a program, not a picture"):
        read_image(file.getvalue())
    assert not started
