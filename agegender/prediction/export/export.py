"""Exports a network for ONNX Runtime: `agegender export weights=<checkpoint> out=model.onnx`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agegender.errors import AgeGenderError, missing_extra, require
from agegender.system.files import atomic_write

if TYPE_CHECKING:
    from agegender.prediction.backends.torch_backend import TorchBackend
    from agegender.prediction.export.onnx_graph import Precision


def export(
    out: str | None,
    weights: str = "default",
    check: str | None = None,
    precision: Precision = "float32",
    thresholds: Sequence[int] = (),
) -> None:
    """Export a network to one ONNX file for `predict.py backend=onnx`, after comparing its outputs with PyTorch's.

    The differences, the time per face and the file size are printed to standard output.

    Args:
        out: Output file, ending in `.onnx`.
        weights: See `Predictor`.
        check: File, folder or glob of face crops to compare on; None for drawn faces.
        precision: Precision of the stored weights; see `onnx_graph.quantize_weights`.
        thresholds: Ages whose probabilities P(age >= T) are outputs too.

    Raises:
        AgeGenderError: A setting is invalid, a package is missing, the network can't be exported, or its outputs
            differ (see `parity`). No file is written then.
    """
    if not out:
        raise AgeGenderError("say where to: agegender export out=model.onnx; see --help")
    target = Path(out)
    require(target.suffix == ".onnx" and not target.is_dir(), f"out={out} must be a file ending in .onnx")
    content, _ = checked_model(weights, check, [precision], thresholds)
    try:
        with atomic_write(target) as written:
            written.write(content)
    except OSError as error:
        raise AgeGenderError(f"out={out} can't be written ({error.strerror}); write elsewhere") from None
    print(target)


def checked_model(
    weights: str, check: str | None, precisions: Sequence[Precision], thresholds: Sequence[int] = ()
) -> tuple[bytes, TorchBackend]:
    """Convert a network to the content of an ONNX file, after comparing its outputs with PyTorch's.

    Args:
        weights: See `export`.
        check: See `export`.
        precisions: The precisions to try; the first that keeps the predictions is taken.
        thresholds: See `export`.

    Returns:
        The content of the file, and the network it was made from.

    Raises:
        AgeGenderError: See `export`; with several precisions, if all change the predictions.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_extra("exporting", error, "onnx") from None
    from agegender.prediction.backends.onnx_backend import OnnxBackend
    from agegender.prediction.backends.torch_backend import TorchBackend
    from agegender.prediction.export.onnx_graph import build_graph, quantize_weights, save_graph
    from agegender.prediction.export.parity import check_faces, check_parity, check_quantized, latency_ms, run_backend

    source = TorchBackend(weights, device="cpu", thresholds=thresholds)
    faces = check_faces(check, source.image_size, source.grayscale)
    print(f"weights: {source.weights}")
    print(f"checked on {faces.words}")
    tasks, model, expected = source.tasks, build_graph(source), run_backend(source, faces.pixels)
    print(f"PyTorch  {latency_ms(source, faces.pixels):.2f} ms per face on one thread")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"

        def report(kind: str, difference: str) -> None:
            speed = latency_ms(exported, faces.pixels)
            print(f"{kind:8} {speed:.2f} ms, {file.stat().st_size / 1e6:.2f} MB, differs by {difference}")

        save_graph(model, file)
        whole, exported = file.read_bytes(), OnnxBackend(file)
        outputs = run_backend(exported, faces.pixels)
        report("float32", check_parity(outputs, expected, tasks, faces.words, faces.drawn))
        for precision in precisions:
            if precision == "float32":
                return whole, source
            save_graph(quantize_weights(model, precision), file)
            exported = OnnxBackend(file)
            try:
                difference = check_quantized(run_backend(exported, faces.pixels), expected, tasks, precision, faces)
            except AgeGenderError:
                if precision == precisions[-1]:
                    raise
                print(f"{precision:8} moves the predictions too far: a higher precision is taken")
                continue
            report(precision, difference)
            return file.read_bytes(), source
    raise AssertionError("no precision was given")
