"""Published weights of face-recognition networks: finding, downloading and loading them into a `FaceTrunk`."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn

from agegender.errors import AgeGenderError, missing_extra, require
from agegender.system.files import atomic_write, default_cache_dir, raise_cache_errors

if TYPE_CHECKING:
    from agegender.models.trunks.face import FaceTrunk

Backbone = Literal["mobilefacenet", "sface"]
FOLDER_VARIABLE = "AGEGENDER_FACE_WEIGHTS"


class Published(NamedTuple):
    """A published file of weights.

    Attributes:
        backbone: Architecture of the weights.
        file: Name of the file.
        sha256: SHA-256 of its content, hexadecimal.
        url: Address of the file, or of a zip archive that contains it.
        license: License of the weights.
        mean: Mean that the network expects to be subtracted from pixels in [0, 1].
        std: Standard deviation that divides them afterwards.
    """

    backbone: Backbone
    file: str
    sha256: str
    url: str
    license: str
    mean: float
    std: float


PUBLISHED = {
    "w600k_mbf": Published(
        "mobilefacenet",
        "w600k_mbf.onnx",
        "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
        "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_sc.zip",
        "InsightFace's model pack buffalo_sc, trained on WebFace600K: non-commercial research only",
        0.5,
        0.5,
    ),
    "sface": Published(
        "sface",
        "face_recognition_sface_2021dec.onnx",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/face_recognition_sface/"
        "face_recognition_sface_2021dec.onnx",
        "OpenCV Zoo: Apache-2.0",
        0.5,
        128 / 255,
    ),
}
DEFAULTS: dict[str, str] = {entry.backbone: name for name, entry in PUBLISHED.items()}  # by backbone


def published(weights: str) -> Published | None:
    """Return the published file with a name of `PUBLISHED`; None for a path.

    Raises:
        AgeGenderError: `weights` is neither a name of `PUBLISHED` nor a file.
    """
    if weights in PUBLISHED:
        return PUBLISHED[weights]
    fits = Path(weights).expanduser().is_file()
    require(fits, f"model.pretrained={weights} is neither a file nor one of: {', '.join(PUBLISHED)}")
    return None


def describe_weights(weights: str, backbone: Backbone | None = None) -> tuple[Backbone, float, float]:
    """Return the backbone of weights, and the mean and standard deviation of pixels that it expects.

    Args:
        weights: A name of `PUBLISHED`, or an ONNX file of one of the two networks.
        backbone: Architecture; required for a file, optional for a published name.

    Raises:
        AgeGenderError: The backbone is missing for a file, or doesn't match a published name.
    """
    known = published(weights)
    if known is None:
        if backbone is None:
            raise AgeGenderError(
                f"model.pretrained={weights} is a file: set its architecture with "
                "model.trunk.backbone=mobilefacenet or model.trunk.backbone=sface"
            )
        known = next(entry for entry in PUBLISHED.values() if entry.backbone == backbone)
    fits = backbone in (None, known.backbone)
    require(fits, f"model.pretrained={weights} are for model.trunk.backbone={known.backbone}, not for {backbone}")
    return known.backbone, known.mean, known.std


def find_weights(weights: str) -> Path:
    """Return the path of weights, downloading a published file if it is missing.

    Published files are looked up in `$AGEGENDER_FACE_WEIGHTS`, or in `face_weights` of the cache folder, and verified
    by their SHA-256.

    Raises:
        AgeGenderError: A file is missing and can't be downloaded, or its SHA-256 is wrong.
    """
    known = published(weights)
    if known is None:
        return Path(weights).expanduser()
    chosen = os.environ.get(FOLDER_VARIABLE)
    folder = Path(chosen).expanduser() if chosen else default_cache_dir() / "face_weights"
    path = folder / known.file
    if not path.is_file():
        _download(weights, known, path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    require(
        digest == known.sha256,
        f"model.pretrained={weights}: {path} is damaged or another file (its SHA-256 begins with {digest[:8]}, not "
        f"with {known.sha256[:8]}); delete it to download it again",
    )
    return path


def _download(weights: str, known: Published, path: Path) -> None:
    """Download a published file with a progress bar, and write it atomically."""
    print(f"downloading {known.url} ({known.license}) into {path.parent}")
    with raise_cache_errors("the downloaded weights", path, 40_000_000):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.download")
        try:
            torch.hub.download_url_to_file(known.url, str(temporary))
            if zipfile.is_zipfile(temporary):
                with zipfile.ZipFile(temporary) as archive:
                    content = archive.read(_member(archive, known.file))
            else:
                content = temporary.read_bytes()
            with atomic_write(path) as file:
                file.write(content)
        except (URLError, TimeoutError, KeyError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())
            raise AgeGenderError(
                f"model.pretrained={weights}: {known.url} can't be read ({reason}); go online, or put {known.file} "
                f"({known.license}) into {path.parent}, or set {FOLDER_VARIABLE}=<folder>"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)


def _member(archive: zipfile.ZipFile, file: str) -> str:
    for name in archive.namelist():
        if name.rpartition("/")[2] == file:
            return name
    raise KeyError(f"the archive doesn't contain {file}")


def load_face_weights(trunk: FaceTrunk, weights: str) -> None:
    """Load weights into a trunk.

    The ONNX graph has its convolutions, activations and dense layers in the order of the trunk's layers; each batch
    norm is folded exactly into the layer before it.

    Args:
        trunk: Modified in place.
        weights: A name of `PUBLISHED`, or an ONNX file.

    Raises:
        AgeGenderError: See `find_weights`; or the file is of another network.
    """
    path = find_weights(weights)
    stored = _read(path, weights)
    ours = [layer for layer in trunk.modules() if isinstance(layer, nn.Conv2d | nn.PReLU | nn.Linear)]
    mismatch = f"model.pretrained={weights}: {path} is not of the network model.trunk.backbone={trunk.backbone}"
    require(len(stored) >= len(ours), mismatch)
    with torch.no_grad():
        for layer, (weight, bias) in zip(ours, stored, strict=False):
            require(layer.weight.shape == weight.shape and (bias is None) == isinstance(layer, nn.PReLU), mismatch)
            layer.weight.copy_(weight)
            if bias is not None:
                layer.bias.copy_(bias)  # type: ignore[union-attr,operator]


def _read(path: Path, weights: str) -> list[tuple[Tensor, Tensor | None]]:
    """Return weight and bias of each convolution and dense layer and weight of each PReLU, in the graph's order."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise missing_extra(f"model.pretrained={weights}", error, "onnx") from None
    try:
        graph = onnx.load(str(path)).graph
        values = {stored.name: torch.tensor(numpy_helper.to_array(stored)) for stored in graph.initializer}
    except Exception as error:  # protobuf raises various exceptions for other files
        reason = " ".join(str(error).split())[:150]
        raise AgeGenderError(f"model.pretrained={weights}: {path} is no ONNX model ({reason})") from None
    layers: list[tuple[Tensor, Tensor | None]] = []
    convolved = ""  # the last convolution's output
    for node in graph.node:
        inputs = [values.get(name) for name in node.input[1:]]
        if node.op_type in ("Conv", "Gemm") and inputs[0] is not None:
            layers.append((inputs[0], inputs[1] if len(inputs) > 1 else torch.zeros(len(inputs[0]))))
            convolved = node.output[0]
        elif node.op_type == "PRelu" and inputs[0] is not None:
            layers.append((inputs[0].flatten(), None))
        elif node.op_type == "BatchNormalization" and node.input[0] == convolved:
            layers[-1] = _folded(layers[-1], inputs, node)
    return layers


def _folded(layer: tuple[Tensor, Tensor | None], norm: list[Tensor | None], node: Any) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of a layer with the following batch norm folded in."""
    (weight, bias), (gain, offset, mean, variance) = layer, norm
    assert bias is not None and gain is not None and offset is not None and mean is not None and variance is not None
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    factor = gain / (variance + epsilon).sqrt()
    return weight * factor.view(-1, *[1] * (weight.ndim - 1)), offset + (bias - mean) * factor
