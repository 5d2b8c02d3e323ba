"""Export of a page that finds faces and predicts in the browser: `agegender export format=web out=site`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agegender.errors import AgeGenderError, require
from agegender.prediction.export.export import checked_model
from agegender.prediction.faces.detector import FaceDetector
from agegender.system.files import atomic_write, raise_write_errors
from agegender.version import __version__
from agegender.web.model_info import describe_model
from agegender.web.samples import draw_sample
from agegender.web.site.runtime import runtime_files

if TYPE_CHECKING:
    from agegender.prediction.backends.torch_backend import TorchBackend
    from agegender.prediction.export.onnx_graph import Precision

MANIFEST = "manifest.json"  # the last file that is written
MAX_MEGAPIXELS = 40  # of an image: 4 bytes for each pixel, a few times
_PAGE = Path(__file__).parents[1] / "page"
_SITE = Path(__file__).parent / "page"  # replaces and adds files
_NARROWEST_FIRST: tuple[Precision, ...] = ("int8", "float16", "float32")
# The worker is started from a blob, which inherits this policy.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'"
)
_CHARSET = '<meta charset="utf-8">'


def export_site(
    out: str | None,
    weights: str = "default",
    check: str | None = None,
    precision: Precision | None = None,
    runtime: str | None = None,
) -> None:
    """Write the page as static files, with the network, the face detector and ONNX Runtime for browsers.

    `manifest.json` lists the files with their sizes and SHA-256.

    Args:
        out: Output folder: a new or empty one, or one that an earlier export wrote.
        weights: See `Predictor`.
        check: File, folder or glob of face crops to compare the network on; None for drawn faces.
        precision: Precision of the stored weights; None for the smallest that keeps the predictions.
        runtime: Folder `dist` of the npm package onnxruntime-web; None downloads it once, see `runtime.VERSION`.

    Raises:
        AgeGenderError: A setting is invalid, a package is missing, the network can't be exported, its outputs differ,
            or ONNX Runtime's files are missing.
    """
    if not out:
        raise AgeGenderError("say where to: agegender export format=web out=site; see --help")
    target = Path(out)
    _check_folder(target)
    FaceDetector()  # raises if the packages of the extra are missing
    scripts, version = runtime_files(runtime)
    network, source = checked_model(weights, check, [precision] if precision else _NARROWEST_FIRST)
    from agegender.web.site.yunet import dynamic_yunet  # needs onnx, which `checked_model` has checked

    files = {
        **_page_files(),
        **{f"runtime/{name}": content for name, content in scripts.items()},
        **_model_files(source),
        "model.onnx": network,
        "face_detector.onnx": dynamic_yunet(),
    }
    manifest = {"agegender": __version__, "onnxruntime-web": version, "files": _listed(files)}
    with raise_write_errors("the page", target):
        for name, content in {**files, MANIFEST: _json(manifest)}.items():
            with atomic_write(target / name) as file:
                file.write(content)
    print(f"{sum(map(len, files.values())) / 1e6:.1f} MB in {target}; try it: python -m http.server -d {target}")


def _check_folder(target: Path) -> None:
    require(not target.exists() or target.is_dir(), f"out={target} is a file; give a folder")
    earlier = not target.exists() or not any(target.iterdir()) or (target / MANIFEST).is_file()
    require(earlier, f"out={target} holds other files and no {MANIFEST} of an earlier export; give an empty folder")


def _page_files() -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for folder in (_PAGE, _SITE) for path in sorted(folder.iterdir())}
    page = found["index.html"].decode()
    policy = f'{_CHARSET}\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    assert _CHARSET in page
    return found | {"index.html": page.replace(_CHARSET, policy).encode()}


def _model_files(source: TorchBackend) -> dict[str, bytes]:
    """Return `model.json`, which page and worker read, and the samples that it names."""
    model = {
        **describe_model(source, source.tasks, "auto"),
        "max_upload_mb": None,
        "max_megapixels": MAX_MEGAPIXELS,
        "image_size": source.image_size,
        "channels": 1 if source.grayscale else 3,
    }
    samples = [each["address"] for each in model["samples"]]
    return {"model.json": _json(model), **{address: draw_sample(Path(address).name) for address in samples}}


def _listed(files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode()
