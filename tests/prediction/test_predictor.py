"""The predictor equals the trained module, for images of any format, batch size or damage."""

from __future__ import annotations

import csv
import io
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import ROOT, STORED, TINY, metrics_of
from helpers.made_networks import save_network
from helpers.made_predictions import made
from helpers.nodes import FURTHER, gender_node, task_nodes, trunk_node
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image, ImageOps

import agegender
from agegender.config.allowlist import kwargs_of
from agegender.config.hydra_versions import version_base
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.decode import eval_transform, read_image
from agegender.errors import AgeGenderError
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.images.sources import FLUSH, NamedImage
from agegender.prediction.prediction import Prediction, to_row
from agegender.prediction.predictor import MAX_CHUNK, Predictor
from agegender.runs.checkpoint import load_checkpoint
from agegender.training.module import AgeGenderModule

YEARS = 1e-4
PROBABILITY = 1e-6


@pytest.fixture(scope="module")
def predictor(trained_run: Path) -> Predictor:
    return Predictor(trained_run, device="cpu", detect="never")


@pytest.fixture(scope="module")
def color_predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A predictor of an untrained color network, saved by Lightning, whose predictions differ between faces."""
    path = tmp_path_factory.mktemp("color") / "color.ckpt"
    torch.manual_seed(0)
    sizes = {"image_size": 32, "in_channels": 3, "head_units": [16]}
    network = sizes | {"tasks": task_nodes("mae"), "trunk": trunk_node(channels=[8, 16])}
    module = AgeGenderModule(network, {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1}, "scheduler": None})
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)
    return Predictor(path, device="cpu", detect="never")


@pytest.fixture(scope="module")
def paths(faces: Path) -> list[Path]:
    return sorted(faces.glob("*.jpg"))[:40]


@pytest.fixture(scope="module")
def photo(faces: Path) -> Image.Image:
    """A face without any symmetry: off center, and wider than high."""
    with Image.open(min(faces.glob("*.jpg"))) as image:
        picture = image.convert("RGB").crop((0, 4, 64, 52))
    picture.paste((200, 40, 90), (0, 0, 20, 12))
    return picture


def predict_one(predictor: Predictor, source: Path | bytes | Image.Image) -> tuple[float, float]:
    (prediction,) = predictor.predict([source])
    assert prediction.error is None, prediction.error
    assert prediction.age is not None and prediction.p_female is not None
    return prediction.age, prediction.p_female


def as_array(predictions: list[Prediction]) -> NDArray[np.float64]:
    return np.array([(prediction.age, prediction.p_female) for prediction in predictions], dtype=np.float64)


def all_close(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool((np.abs(one - other) <= (YEARS, PROBABILITY)).all())


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


# Equality with the module


def test_predictor_equals_the_module_on_the_test_split(trained_run: Path, predictor: Predictor) -> None:
    with initialize_config_dir(str(ROOT / "conf"), **version_base()):
        config = OmegaConf.to_container(compose("train", list(TINY)).data, resolve=True)
    assert isinstance(config, dict)
    data = AgeGenderDataModule(**kwargs_of({str(key): value for key, value in config.items()}))
    data.prepare_data()
    data.setup()
    checkpoint = trained_run / "checkpoints" / "best.ckpt"
    module = AgeGenderModule.load_from_checkpoint(checkpoint, weights_only=True, map_location="cpu").eval()
    rows, theirs = [], []
    with torch.inference_mode():
        for batch in data.test_dataloader():
            rows += batch["row"].tolist()
            columns = module(batch["image"])
            theirs += torch.stack((columns["age"], columns["p_female"]), 1).tolist()
    assert len(rows) >= 20
    ours = list(predictor.predict(data.index.folder / data.index.names[row] for row in rows))
    assert all_close(as_array(ours), np.array(theirs))
    assert np.ptp(as_array(ours)[:, 0]) > 100 * YEARS, "all the same: this would prove nothing"


def test_predictor_equals_the_predictions_csv_of_the_run(trained_run: Path, predictor: Predictor) -> None:
    with (trained_run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 20
    ours = list(predictor.predict([row["path"] for row in rows]))
    assert [answer.path for answer in ours] == [row["path"] for row in rows]
    written = np.array([(float(row["age_pred"]), float(row["p_female"])) for row in rows])
    assert np.abs(as_array(ours) - written).max(0) == pytest.approx((0, 0), abs=6e-4)
    assert np.abs(as_array(ours)[:, 1] - written[:, 1]).max() < 6e-6


def test_gender_is_the_likelier_label_at_or_above_min_confidence(
    predictor: Predictor, color_predictor: Predictor, paths: list[Path]
) -> None:
    given_genders = set()
    for each in (predictor, color_predictor):
        for prediction in each.predict(paths):
            assert prediction.p_female is not None
            assert 0 <= prediction.p_female <= 1
            likelier = "female" if prediction.p_female > 0.5 else "male"
            sure = max(prediction.p_female, 1 - prediction.p_female) >= each.tasks[1].min_confidence
            assert prediction.gender == (likelier if sure else "unsure")
            given_genders.add(prediction.gender)
    assert given_genders >= {"female", "male"}, "only one was ever answered: this would prove little"


def test_min_confidence_defaults_to_that_of_the_checkpoint(trained_run: Path, paths: list[Path]) -> None:
    stored = load_checkpoint(trained_run / "checkpoints" / "best.ckpt")["network"]["tasks.gender._extra_state"]
    least = [info.min_confidence for info in Predictor(trained_run, "cpu", detect="never").tasks if info.classes]
    assert least == [stored["min_confidence"]] == [metrics_of(trained_run)["tasks"][1]["min_confidence"]]
    always, never = (Predictor(trained_run, "cpu", detect="never", min_confidence=least) for least in (0.5, 1))
    assert {face.gender for face in always.predict(paths)} <= {"female", "male"}
    assert {face.gender for face in never.predict(paths)} == {"unsure"}
    for wrong in (0.49, 1.01, float("nan")):
        with pytest.raises(AgeGenderError, match=r"min_confidence=.* must lie between 0.5"):
            Predictor(trained_run, "cpu", detect="never", min_confidence=wrong)


def test_checkpoint_names_class_1_female(trained_run: Path) -> None:
    assert Predictor(trained_run, "cpu", detect="never").tasks[1].classes == ("male", "female")


# Tasks


def test_values_hold_the_columns_of_every_task_in_order(paths: list[Path], tmp_path: Path) -> None:
    tasks = task_nodes("dldl") | FURTHER
    weights = save_network(tmp_path / "wide.ckpt", tasks=tasks)
    predictor = Predictor(weights, "cpu", detect="never", min_confidence=0.333)
    found = list(predictor.predict(paths))
    names = ["age", "age_std", "age_low", "age_high", "p_female", "gender"]
    names += ["p_mood_happy", "p_mood_calm", "p_mood_sad", "mood", "p_glasses", "glasses"]
    names += ["height", "height_std", "height_low", "height_high"]
    pixels = np.stack([eval_transform(read_image(path.read_bytes()), 32, False) for path in paths])
    columns = predictor.network(pixels)
    for number, face in enumerate(found):
        values = face.values
        assert list(values) == names and (face.age, face.p_female) == (values["age"], values["p_female"])
        assert {name: values[name] for name in columns} == pytest.approx(
            {name: column[number] for name, column in columns.items()}, abs=1e-4
        )
        shares = {each: values[f"p_mood_{each}"] for each in ("happy", "calm", "sad")}
        assert sum(shares.values()) == pytest.approx(1) and values["mood"] == max(shares, key=shares.__getitem__)
        assert values["glasses"] == ("yes" if values["p_glasses"] > 0.5 else "no")
    assert all(len({face.values[name] for face in found}) > 9 for name in ("p_mood_calm", "p_glasses", "height"))


def test_min_confidence_is_that_of_every_task_with_classes(paths: list[Path], tmp_path: Path) -> None:
    weights = save_network(tmp_path / "wide.ckpt", tasks=task_nodes("mae") | FURTHER)
    for face in Predictor(weights, "cpu", detect="never", min_confidence=1.0).predict(paths[:5]):
        assert {face.values[name] for name in ("gender", "mood", "glasses")} == {"unsure"}
        assert face.values["height"] > 0
    for face in Predictor(weights, "cpu", detect="never", min_confidence=0.333).predict(paths[:5]):
        assert "unsure" not in face.values.values()
    with pytest.raises(AgeGenderError, match=r"min_confidence=0.3 must lie between 0.333 \(never unsure\) and 1"):
        Predictor(weights, "cpu", detect="never", min_confidence=0.3)


def test_predictor_of_one_task_leaves_the_others_attributes_empty(paths: list[Path], tmp_path: Path) -> None:
    ages = save_network(tmp_path / "ages.ckpt", tasks={"age": task_nodes("mae")["age"]}, calibrated=False)
    (face,) = Predictor(ages, "cpu", detect="never")(paths[0])
    assert face.values == {"age": face.age, "age_std": None, "age_low": None, "age_high": None}
    assert face.age is not None and face.gender is None and face.p_female is None
    with pytest.raises(AgeGenderError, match=r"min_confidence=0\.9 needs a task with classes, which"):
        Predictor(ages, "cpu", detect="never", min_confidence=0.9)
    genders = save_network(tmp_path / "genders.ckpt", tasks={"gender": gender_node()})
    (face,) = Predictor(genders, "cpu", detect="never")(paths[0])
    assert list(face.values) == ["p_female", "gender"] and face.age is None


def test_image_has_an_error_if_the_network_has_diverged(paths: list[Path], tmp_path: Path) -> None:
    predictor = Predictor(
        save_network(tmp_path / "wide.ckpt", tasks=task_nodes("dldl") | FURTHER), "cpu", detect="never"
    )
    assert isinstance(predictor.network, TorchBackend)
    with torch.no_grad():
        for parameter in predictor.network.network.heads.parameters():
            parameter.fill_(float("nan"))
    (face,) = predictor(paths[0])
    assert face == Prediction(str(paths[0]), error="the network's output is not a number")
    assert to_row(face, predictor.tasks)["p_female"] is None


def test_predictions_are_hashable_and_equal_by_their_values() -> None:
    assert len({made(age=3.0), made(age=3.0), made(age=4.0)}) == 2


@pytest.mark.parametrize("batch_size", [1, 3, 39, 40, 41])
def test_predictor_does_not_depend_on_the_batch_size(predictor: Predictor, paths: list[Path], batch_size: int) -> None:
    expected = list(predictor.predict(paths))
    batched = list(predictor.predict(paths, batch_size=batch_size))
    assert [each.path for each in batched] == [str(path) for path in paths]
    assert all_close(as_array(batched), as_array(expected))


def test_predictor_does_not_depend_on_order_or_neighbors(predictor: Predictor, paths: list[Path]) -> None:
    expected = as_array(list(predictor.predict(paths)))
    order = np.random.default_rng(0).permutation(len(paths))
    shuffled = list(predictor.predict([paths[place] for place in order], batch_size=7))
    assert [each.path for each in shuffled] == [str(paths[place]) for place in order]
    assert all_close(as_array(shuffled), expected[order])


def test_predictor_accepts_paths_bytes_files_and_images_alike(predictor: Predictor, paths: list[Path]) -> None:
    path = paths[0]
    with path.open("rb") as file, Image.open(path) as picture:
        predictions = list(predictor.predict([path, str(path), path.read_bytes(), file, picture]))
    assert [prediction.error for prediction in predictions] == [None] * 5
    assert all_close(as_array(predictions), as_array(predictions[:1]).repeat(5, 0))
    assert [predictions[0].path, predictions[1].path, predictions[2].path] == [str(path), str(path), "<bytes>"]


def test_predictor_holds_two_batches_of_an_endless_stream(predictor: Predictor, paths: list[Path]) -> None:
    pulled = 0

    def endless() -> Iterator[Path]:
        nonlocal pulled
        while True:
            pulled += 1
            yield paths[pulled % len(paths)]

    for answered, prediction in enumerate(islice(predictor.predict(endless(), batch_size=2), 5)):
        assert prediction.age is not None
        assert pulled - answered <= 4


@pytest.mark.parametrize("whole", [False, True])
def test_predictor_yields_before_it_waits_for_the_next_image(whole: bool, trained_run: Path, paths: list[Path]) -> None:
    predictor = Predictor(trained_run, device="cpu", detect="never")
    predictor.network.prefers_large_batches = whole
    answered: list[str] = []

    def one_by_one() -> Iterator[Path]:
        for number, path in enumerate(paths[:4]):
            assert len(answered) == number
            yield path

    for prediction in predictor.predict(one_by_one(), batch_size=1):
        answered.append(prediction.path)
    assert answered == [str(path) for path in paths[:4]]

    def with_pauses() -> Iterator[Path | NamedImage]:
        for end in (2, 5, 5, 6):
            yield from paths[len(answered) : end]
            yield FLUSH
            assert answered == [str(path) for path in paths[:end]]
        yield paths[6]

    answered.clear()
    for prediction in predictor.predict(with_pauses(), batch_size=3):
        answered.append(prediction.path)
    assert answered == [str(path) for path in paths[:7]]


def test_predictor_holds_few_decoded_images(predictor: Predictor, photo: Image.Image) -> None:
    pulled = 0

    def video() -> Iterator[NamedImage]:
        nonlocal pulled
        while True:
            pulled += 1
            yield NamedImage(f"#t={pulled}", lambda: photo, decoded=True)

    for answered, prediction in enumerate(islice(predictor.predict(video(), batch_size=64), 40)):
        assert prediction.path == f"#t={answered + 1}" and prediction.age is not None
        assert pulled - answered <= 2 * MAX_CHUNK


def test_predictor_gives_large_batches_the_same_predictions(
    trained_run: Path, predictor: Predictor, paths: list[Path], tmp_path: Path
) -> None:
    mixed = [*paths[:5], tmp_path / "missing.jpg", *paths[5:]]
    whole = Predictor(trained_run, device="cpu", detect="never")
    whole.network.prefers_large_batches = True
    for batch_size in (1, 7, 64):
        one, other = (list(each.predict(mixed, batch_size)) for each in (predictor, whole))
        assert [each.path for each in one] == [each.path for each in other] == [str(path) for path in mixed]
        assert one.pop(5) == other.pop(5) == Prediction(str(tmp_path / "missing.jpg"), error="no such file")
        assert all_close(as_array(one), as_array(other))


@pytest.mark.parametrize("answers", [3, None])
def test_predictor_restores_threads_and_warnings(predictor: Predictor, paths: list[Path], answers: int | None) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        filters = list(warnings.filters)
        stream = predictor.predict(paths, batch_size=8)
        assert [each.error for each in islice(stream, answers)] == [None] * (answers or len(paths))
        stream.close()  # type: ignore[attr-defined]
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == threads + 1
        assert list(warnings.filters) == filters
    finally:
        torch.set_num_threads(threads)


def test_predictor_returns_nothing_for_no_images(predictor: Predictor) -> None:
    assert list(predictor.predict([])) == []


# Image formats


@pytest.mark.parametrize("form", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_predictor_applies_the_exif_orientation(
    color_predictor: Predictor, photo: Image.Image, orientation: int, form: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    method = STORED[orientation]
    turned = photo if method is None else photo.transpose(method)
    options = {"lossless": True} if form == "webp" else {}
    got = predict_one(color_predictor, encode(turned, form, exif=exif, **options))
    assert got == pytest.approx(predict_one(color_predictor, photo), abs=YEARS)
    if method is not None:  # without the rotation, the prediction differs
        assert abs(predict_one(color_predictor, turned)[0] - got[0]) > 10 * YEARS


def test_predictor_applies_the_exif_orientation_of_a_jpeg(color_predictor: Predictor, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    got = predict_one(color_predictor, encode(turned, "jpeg", exif=exif, quality=100, subsampling=0))[0]
    loss = abs(got - predict_one(color_predictor, photo)[0])  # JPEG's own
    assert loss < 0.2 * abs(got - predict_one(color_predictor, turned)[0])


def png_with_16_bits(values: NDArray[np.uint16], color_type: int) -> bytes:
    """Encodes a PNG of several 16-bit channels, which Pillow reads but does not write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _sixteen(image: Image.Image) -> NDArray[np.uint16]:
    return np.asarray(image).astype(np.uint16) * 257


def _opaque(image: Image.Image) -> Image.Image:
    copy = image.copy()
    copy.putalpha(255)
    return copy


# Each format: the encoded image and the plain RGB image that it shows.
Storing = Callable[[Image.Image], tuple[bytes, Image.Image]]
STORINGS: dict[str, Storing] = {
    "CMYK tiff": lambda rgb: (encode(rgb.convert("CMYK"), "tiff"), rgb),
    "palette png": lambda rgb: (encode(rgb.quantize(64), "png"), rgb.quantize(64).convert("RGB")),
    "palette gif": lambda rgb: (encode(rgb.quantize(64), "gif"), rgb.quantize(64).convert("RGB")),
    "gray png": lambda rgb: (encode(rgb.convert("L"), "png"), rgb.convert("L").convert("RGB")),
    "gray and alpha png": lambda rgb: (encode(rgb.convert("LA"), "png"), rgb.convert("L").convert("RGB")),
    "bilevel png": lambda rgb: (encode(rgb.convert("1"), "png"), rgb.convert("1").convert("RGB")),
    "opaque alpha png": lambda rgb: (encode(_opaque(rgb), "png"), rgb),
    "opaque alpha webp": lambda rgb: (encode(_opaque(rgb), "webp", lossless=True), rgb),
    "16-bit gray png": lambda rgb: (
        encode(Image.fromarray(_sixteen(rgb.convert("L"))), "png"),
        rgb.convert("L").convert("RGB"),
    ),
    "16-bit gray tiff": lambda rgb: (
        encode(Image.fromarray(_sixteen(rgb.convert("L"))), "tiff"),
        rgb.convert("L").convert("RGB"),
    ),
    "16-bit color png": lambda rgb: (png_with_16_bits(_sixteen(rgb), 2), rgb),
    "16-bit color and alpha png": lambda rgb: (png_with_16_bits(_sixteen(_opaque(rgb)), 6), rgb),
    "ppm": lambda rgb: (encode(rgb, "ppm"), rgb),
    "bmp": lambda rgb: (encode(rgb, "bmp"), rgb),
}


@pytest.mark.parametrize("storing", STORINGS)
def test_predictor_does_not_depend_on_the_image_format(
    predictor: Predictor, color_predictor: Predictor, photo: Image.Image, storing: str
) -> None:
    content, plain = STORINGS[storing](photo)
    for each in (predictor, color_predictor):
        assert predict_one(each, content) == pytest.approx(predict_one(each, encode(plain, "png")), abs=YEARS)


def test_predictor_does_not_invert_a_cmyk_jpeg(color_predictor: Predictor, photo: Image.Image) -> None:
    cmyk = encode(photo.convert("CMYK"), "jpeg", quality=100, subsampling=0)
    got = predict_one(color_predictor, cmyk)[0]
    loss = abs(got - predict_one(color_predictor, photo)[0])  # JPEG's own
    assert loss < 0.2 * abs(got - predict_one(color_predictor, ImageOps.invert(photo))[0])


def test_predictor_composes_transparent_pixels_on_white(color_predictor: Predictor, photo: Image.Image) -> None:
    mask = Image.new("L", photo.size, 255)
    mask.paste(0, (0, 0, 40, 30))
    see_through = photo.copy()
    see_through.putalpha(mask)
    on_white = Image.new("RGB", photo.size, "white")
    on_white.paste(photo, mask=mask)
    expected = predict_one(color_predictor, on_white)
    assert predict_one(color_predictor, encode(see_through, "png")) == pytest.approx(expected, abs=YEARS)
    assert abs(predict_one(color_predictor, photo)[0] - expected[0]) > 100 * YEARS


def test_predictor_keeps_color_for_a_color_network(color_predictor: Predictor, photo: Image.Image) -> None:
    red, green, blue = photo.split()
    swapped = predict_one(color_predictor, Image.merge("RGB", (blue, green, red)))
    assert abs(swapped[0] - predict_one(color_predictor, photo)[0]) > 100 * YEARS


def test_predictor_takes_the_first_frame_of_an_animated_png(color_predictor: Predictor, photo: Image.Image) -> None:
    black = Image.new("RGB", photo.size)
    animation = encode(photo, "png", save_all=True, append_images=[black])
    assert predict_one(color_predictor, animation) == pytest.approx(predict_one(color_predictor, photo), abs=YEARS)


# Unreadable files


def test_predictor_gives_a_reason_for_each_unreadable_file(
    predictor: Predictor, paths: list[Path], tmp_path: Path
) -> None:
    broken = {name: tmp_path / name for name in ("empty.jpg", "text.jpg", "truncated.jpg", "truncated.png")}
    broken["empty.jpg"].touch()
    broken["text.jpg"].write_text("not a picture")
    broken["truncated.jpg"].write_bytes(paths[0].read_bytes()[:-300])
    with Image.open(paths[0]) as image:
        broken["truncated.png"].write_bytes(encode(image, "png")[:-300])
    mixed: list[Path] = [tmp_path / "missing.jpg", tmp_path]
    for bad, good in zip(broken.values(), paths[:4], strict=True):
        mixed += [bad, good]
    for batch_size in (1, 3, 64):
        predictions = list(predictor.predict(mixed, batch_size))
        assert [prediction.path for prediction in predictions] == [str(path) for path in mixed]
        good_ones = [prediction for prediction in predictions if prediction.error is None]
        assert [prediction.path for prediction in good_ones] == [str(path) for path in paths[:4]]
        assert all_close(as_array(good_ones), as_array(list(predictor.predict(paths[:4]))))
        for prediction in predictions:
            if prediction.error is not None:
                assert prediction == Prediction(prediction.path, error=prediction.error)
                assert prediction.error.strip() and "\n" not in prediction.error
        assert predictions[0].error == "no such file"


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8))
FORMS = ("jpeg", "png", "gif", "tiff", "bmp", "webp", "ppm", "ico", "tga", "jpeg2000")
SAMPLES = [encode(PICTURE, form) for form in FORMS]


@st.composite
def damaged_pictures(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(SAMPLES)))
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=8)):
        content[place] = value
    return bytes(content[: draw(st.integers(0, len(content)))])


@settings(max_examples=40)
@given(content=st.binary(max_size=200) | damaged_pictures())
def test_predictor_survives_arbitrary_bytes(predictor: Predictor, content: bytes) -> None:
    before, damaged, after = predictor.predict([SAMPLES[1], content, SAMPLES[1]])
    assert before.error is None and after.error is None
    assert all_close(as_array([before]), as_array([after]))  # rounding depends on the chunk size
    assert all_close(as_array([before]), as_array(list(predictor.predict([SAMPLES[1]]))))
    assert (damaged.error is None) == (damaged.age is not None) == (damaged.p_female is not None)
    assert (damaged.error is None) == (damaged.gender is not None)


# Checkpoints and devices


def test_predictor_prefers_the_best_checkpoint_of_a_run(trained_run: Path, tmp_path: Path) -> None:
    assert Predictor(trained_run).weights == trained_run / "checkpoints" / "best.ckpt"
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes((trained_run / "checkpoints" / "last.ckpt").read_bytes())
    assert Predictor(tmp_path).weights == last


def test_predictor_uses_eval_mode(predictor: Predictor, paths: list[Path]) -> None:
    assert isinstance(predictor.network, TorchBackend)
    assert not any(module.training for module in predictor.network.network.modules())
    assert list(predictor.predict(paths[:3])) == list(predictor.predict(paths[:3]))


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", "hpu", ""])
def test_predictor_refuses_an_unusable_device_with_a_remedy(trained_run: Path, device: str) -> None:
    with pytest.raises(AgeGenderError, match=r"device=.*use device=auto"):
        Predictor(trained_run, device)


def test_predictor_with_flip_tta_is_invariant_to_mirroring(trained_run: Path, photo: Image.Image) -> None:
    flipping = Predictor(trained_run, device="cpu", tta="flip", detect="never")
    straight, mirrored = flipping.predict([photo, ImageOps.mirror(photo)])
    assert straight.age == pytest.approx(mirrored.age, abs=YEARS)
    assert straight.p_female == pytest.approx(mirrored.p_female, abs=PROBABILITY)
    assert straight.age != next(Predictor(trained_run, device="cpu", detect="never").predict([photo])).age


def test_predictor_intervals_are_ordered_whole_years(predictor: Predictor, paths: list[Path]) -> None:
    for found in predictor.predict(paths):
        assert found.age_std and found.age_low is not None and found.age_high is not None
        assert 0 <= found.age_low <= found.age_high <= 120
        assert found.age_low == round(found.age_low) and found.age_high == round(found.age_high)
    assert len({found.age_low for found in predictor.predict(paths)}) > 1


def test_package_exports_the_predictor_without_importing_torch() -> None:
    code = "import sys, agegender; agegender.Predictor; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        agegender.Predicter  # noqa: B018
