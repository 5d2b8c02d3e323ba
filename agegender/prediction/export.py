"""Export a network to ONNX: `python -m agegender.prediction.export weights=<checkpoint> out=model.onnx`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from agegender.cli import one_line_errors
from agegender.errors import AgeGenderError, missing_package, require
from agegender.files import write_whole

USAGE = """python -m agegender.prediction.export out=model.onnx [name=value ...]
  out        the file to write, ending in .onnx
  weights    default; a checkpoint, a run's folder, or a folder of runs (its newest)
  check      a folder, file or glob of face crops to check the answers on; drawn faces if left out
  precision  float32; float16 or int8: weights in two bytes or one, refused if that moves the answers
  format     onnx"""


def export(
    out: str,
    weights: str = "default",
    check: str | None = None,
    precision: Literal["float32", "float16", "int8"] = "float32",
    format: Literal["onnx"] = "onnx",
) -> None:
    """Export a network to one ONNX file for `predict.py backend=onnx`, after comparing its outputs with PyTorch's.

    The differences, the time per face and the file size are printed to standard output.

    Args:
        out: Output file, ending in `.onnx`.
        weights: See `Predictor`.
        check: File, folder or glob of face crops to compare on; None for drawn faces.
        precision: Precision of the stored weights; see `onnx_graph.narrowed`.
        format: Only `onnx`.

    Raises:
        AgeGenderError: A setting is invalid, a package is missing, the network can't be exported, or its outputs
            differ (see `onnx_check`). No file is written then.
    """
    target = Path(out)
    require(target.suffix == ".onnx" and not target.is_dir(), f"out={out} must be a file ending in .onnx")
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_package("exporting", error, "onnx") from None
    from agegender.prediction.onnx_check import answers_of, check_faces, milliseconds, require_near, require_same
    from agegender.prediction.onnx_graph import build_graph, narrowed
    from agegender.prediction.onnx_network import OnnxNetwork
    from agegender.prediction.torch_network import TorchNetwork

    source = TorchNetwork(weights, device="cpu")
    faces = check_faces(check, source.image_size, source.grayscale)
    print(f"weights: {source.weights}")
    print(f"checked on {faces.words}")
    model, expected = build_graph(source), answers_of(source, faces.pixels)
    print(f"PyTorch  {milliseconds(source, faces.pixels):.2f} ms per face on one thread")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"

        def measure(kind: str) -> str:
            return f"{kind:8} {milliseconds(exported, faces.pixels):.2f} ms, {file.stat().st_size / 1e6:.2f} MB"

        onnx.save(model, file)
        exported = OnnxNetwork(file)
        difference = require_same(answers_of(exported, faces.pixels), expected, faces.words, faces.drawn)
        print(f"{measure('float32')}, differs by {difference}")
        if precision != "float32":
            onnx.save(narrowed(model, precision), file)
            exported = OnnxNetwork(file)
            difference = require_near(answers_of(exported, faces.pixels), expected, precision, faces)
            print(f"{measure(precision)}, differs by {difference}")
        try:
            with write_whole(target) as written:
                written.write(file.read_bytes())
        except OSError as error:
            raise AgeGenderError(f"out={out} can't be written ({error.strerror}); write elsewhere") from None
    print(target)


def main(arguments: Sequence[str]) -> None:
    """Exports what the command line names."""
    from agegender.signatures import check_call

    with one_line_errors():
        if any(argument in ("-h", "--help") for argument in arguments):
            print(USAGE)
            return
        for argument in arguments:
            require("=" in argument, f"{argument} is no setting; write name=value, and see --help")
        given = dict(argument.split("=", 1) for argument in arguments)
        require(
            bool(given.get("out")), "say where to: python -m agegender.prediction.export out=model.onnx; see --help"
        )
        check_call("", given, export)
        export(**given)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
