"""Exports a network for ONNX Runtime: `agegender export weights=<checkpoint> out=model.onnx`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from agegender.errors import AgeGenderError, missing_extra, require
from agegender.system.files import atomic_write


def export(
    out: str | None,
    weights: str = "default",
    check: str | None = None,
    precision: Literal["float32", "float16", "int8"] = "float32",
    format: Literal["onnx"] = "onnx",
    thresholds: list[int] | None = None,
) -> None:
    """Export a network to one ONNX file for `predict.py backend=onnx`, after comparing its outputs with PyTorch's.

    The differences, the time per face and the file size are printed to standard output.

    Args:
        out: Output file, ending in `.onnx`.
        weights: See `Predictor`.
        check: File, folder or glob of face crops to compare on; None for drawn faces.
        precision: Precision of the stored weights; see `onnx_graph.quantize_weights`.
        format: Only `onnx`.
        thresholds: Ages whose probabilities P(age >= T) are outputs too; None or an empty list for none.

    Raises:
        AgeGenderError: A setting is invalid, a package is missing, the network can't be exported, or its outputs
            differ (see `onnx_check`). No file is written then.
    """
    if not out:
        raise AgeGenderError("say where to: agegender export out=model.onnx; see --help")
    target = Path(out)
    require(target.suffix == ".onnx" and not target.is_dir(), f"out={out} must be a file ending in .onnx")
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

    source = TorchBackend(weights, device="cpu", thresholds=thresholds or ())
    faces = check_faces(check, source.image_size, source.grayscale)
    print(f"weights: {source.weights}")
    print(f"checked on {faces.words}")
    tasks, model, expected = source.tasks, build_graph(source), run_backend(source, faces.pixels)
    print(f"PyTorch  {latency_ms(source, faces.pixels):.2f} ms per face on one thread")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"

        def measure(kind: str) -> str:
            return f"{kind:8} {latency_ms(exported, faces.pixels):.2f} ms, {file.stat().st_size / 1e6:.2f} MB"

        save_graph(model, file)
        exported = OnnxBackend(file)
        difference = check_parity(run_backend(exported, faces.pixels), expected, tasks, faces.words, faces.drawn)
        print(f"{measure('float32')}, differs by {difference}")
        if precision != "float32":
            save_graph(quantize_weights(model, precision), file)
            exported = OnnxBackend(file)
            difference = check_quantized(run_backend(exported, faces.pixels), expected, tasks, precision, faces)
            print(f"{measure(precision)}, differs by {difference}")
        try:
            with atomic_write(target) as written:
                written.write(file.read_bytes())
        except OSError as error:
            raise AgeGenderError(f"out={out} can't be written ({error.strerror}); write elsewhere") from None
    print(target)
