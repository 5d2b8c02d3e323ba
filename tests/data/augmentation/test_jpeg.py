"""The losses of JPEG as tensor code, held against Pillow's real files."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from agegender.data.augmentation import jpeg
from agegender.data.sources.synthetic import generate_faces


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """Drawn faces with some film grain on them, so that there is detail to lose."""
    folder = generate_faces(tmp_path_factory.mktemp("portraits") / "faces", 4, seed=3, size=80)
    grain = np.random.default_rng(0).normal(0, 8, (80, 80, 3))
    drawn = [np.array(Image.open(file).convert("RGB")) for file in sorted(folder.glob("*.jpg"))]
    return [Image.fromarray((face + grain).clip(0, 255).astype(np.uint8)) for face in drawn]


def _tensor(picture: Image.Image) -> Tensor:
    pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).float() / 255


def _as_a_file(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [80, 64, 51])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_jpeg_equals_a_pillow_file_of_the_same_quality(
    portraits: list[Image.Image], mode: str, size: int, quality: int
) -> None:
    pictures = [picture.convert(mode).resize((size, size)) for picture in portraits]
    given = torch.stack([_tensor(picture) for picture in pictures])
    real = torch.stack([_tensor(_as_a_file(picture, quality)) for picture in pictures])
    ours = jpeg.jpeg_compress(given, torch.full((len(pictures),), quality))
    lost, apart = (real - given).abs().mean(), (ours - real).abs().mean() * 255
    assert apart < 1.5  # gray levels: a file's are rounded to whole ones, of the colors before of RGB
    assert (ours - given).abs().mean().item() == pytest.approx(lost.item(), rel=0.1, abs=0.3 / 255)


def test_jpeg_applies_each_images_own_quality(portraits: list[Image.Image]) -> None:
    given = torch.stack([_tensor(picture) for picture in portraits])
    together = jpeg.jpeg_compress(given, torch.tensor([10, 40, 70, 100]))
    for place, quality in enumerate((10, 40, 70, 100)):
        alone = jpeg.jpeg_compress(given[place : place + 1], torch.tensor([quality]))
        torch.testing.assert_close(together[place : place + 1], alone)
    same = given[:1].expand_as(given)
    losses = (jpeg.jpeg_compress(same, torch.tensor([10, 40, 70, 100])) - same).abs().mean((1, 2, 3)).tolist()
    assert losses == sorted(losses, reverse=True)


@given(
    count=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    quality=st.integers(1, 100),
    level=st.sampled_from([None, 0.0, 0.3, 1.0]),
)
@settings(max_examples=60)
def test_jpeg_keeps_size_and_range_for_any_quality(
    count: int, channels: int, height: int, width: int, quality: int, level: float | None
) -> None:
    pictures = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(quality))
    if level is not None:
        pictures.fill_(level)
    before = pictures.clone()
    compressed = jpeg.jpeg_compress(pictures, torch.full((count,), quality))
    assert compressed.shape == pictures.shape and compressed.dtype == torch.float32
    assert compressed.min() >= 0 and compressed.max() <= 1
    assert torch.equal(pictures, before)
    if level is not None:  # a plain picture has a mean to round and no detail; the coarsest step of it is 255 / 8
        assert (compressed - level).abs().max() <= 16 / 255 + 1e-5
