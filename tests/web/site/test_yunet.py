"""YuNet in ONNX Runtime gives OpenCV's detections for images of any size."""

from __future__ import annotations

import io

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from agegender.prediction.faces.detector import FaceDetector
from agegender.web.samples import draw_sample
from agegender.web.site.yunet import dynamic_yunet

STRIDES = (8, 16, 32)


@pytest.mark.parametrize("size", [(320, 320), (416, 96), (800, 608)])
def test_dynamic_yunet_predicts_as_opencv_does(size: tuple[int, int]) -> None:
    drawn = Image.open(io.BytesIO(draw_sample("3.jpg")))
    picture = Image.new("RGB", size, "gray")
    picture.paste(drawn.resize((90, 90)), (3, 2))
    pixels = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
    rows = FaceDetector()._detect(pixels, 0.7)
    assert len(rows) == 1
    session = onnxruntime.InferenceSession(dynamic_yunet(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    blob = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    outputs = dict(zip(names, session.run(None, {"input": blob}), strict=True))
    scores = {stride: np.sqrt(outputs[f"cls_{stride}"] * outputs[f"obj_{stride}"])[0, :, 0] for stride in STRIDES}
    stride = max(STRIDES, key=lambda each: scores[each].max())
    cell = int(scores[stride].argmax())
    assert scores[stride][cell] == pytest.approx(rows[0, 14], abs=1e-5)
    position = np.array([cell % (size[0] // stride), cell // (size[0] // stride)])
    landmarks = (outputs[f"kps_{stride}"][0, cell].reshape(5, 2) + position) * stride
    assert landmarks == pytest.approx(rows[0, 4:14].reshape(5, 2), abs=0.01)
