"""An exported network as the predictor wants it, through ONNX Runtime on the CPU: PyTorch is never imported."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.errors import AgeGenderError, missing_package, require

FORMAT = 2  # of the graph's input, outputs and metadata; goes up when an older reader would misread them
INPUT = "pixels"
OUTPUTS = ("age", "age_std", "age_low", "age_high", "p_female")
EXPORT = "agegender export weights={} out=model.onnx"
BUNDLED_NAMES = ("default", "face", "small")  # `checkpoint.BUNDLED_WEIGHTS`, which imports PyTorch
_A_CHECKPOINT = "<run folder or checkpoint>"


class OnnxNetwork:
    """See `network.Network`.

    Attributes:
        metadata: What the file says of itself, see `onnx_graph.metadata`.
    """

    takes_whole_batches = False

    def __init__(self, weights: str | Path):
        """Loads a file of `agegender.prediction.export`.

        Raises:
            AgeGenderError: There is none, it is no such file, or ONNX Runtime is missing.
        """
        if weights in BUNDLED_NAMES:
            raise AgeGenderError(f"backend=onnx needs an exported file: {EXPORT.format(weights)}")
        self.weights = Path(weights)
        self._session = _open(self.weights)
        self.metadata = _metadata(self._session, self.weights)
        self.labels: list[str] = self.metadata["gender_labels"]
        self.min_confidence: float = self.metadata["min_confidence"]
        self.trained_on_drawings: bool = self.metadata["trained_on_drawings"]
        self.image_size: int = self.metadata["image_size"]
        self.grayscale = self.metadata["channels"] == 1

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Answers for `[batch, size, size, channels]`; see `network.Network`."""
        images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        answers: list[NDArray[np.float32]] = self._session.run(OUTPUTS, {INPUT: images})
        return np.stack(answers, 1).astype(np.float64)

    def shared_by_workers(self) -> AbstractContextManager[None]:
        """Nothing to surround: a session may be called by several threads at once."""
        return nullcontext()

    def start_worker(self) -> None:
        """Nothing to set: each call does its own arithmetic, see `_open`."""


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("backend=onnx", error, "onnx") from None
    if path.is_dir():
        raise AgeGenderError(f"{path} is a folder; backend=onnx takes a file: {EXPORT.format(path)}")
    require(path.is_file(), f"no model at {path.resolve()}; export one: {EXPORT.format(_A_CHECKPOINT)}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the cores are busy with the other workers' calls
    options.log_severity_level = 3  # errors: of the rest, nothing is for the user to mend
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a class for each of its error codes, without one above them all
        reason = " ".join(str(error).split())[:150]
        again = EXPORT.format(_A_CHECKPOINT if path.suffix == ".onnx" else path)
        raise AgeGenderError(f"{path} is no ONNX model ({reason}); export one: {again}") from None


def _metadata(session: Any, path: Path) -> dict[str, Any]:
    """Returns what a file says of itself.

    Raises:
        AgeGenderError: It was not exported by this package, or by a later version.
    """
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    wanted = ("image_size", "channels", "gender_labels", "min_confidence", "trained_on_drawings")
    try:
        version = json.loads(found["agegender_format"])
        known = {name: json.loads(found[name]) for name in wanted} if version == FORMAT else {}
    except (KeyError, ValueError):
        raise AgeGenderError(
            f"{path} is an ONNX model, but none of ours: it doesn't describe itself; export one: "
            + EXPORT.format(_A_CHECKPOINT)
        ) from None
    if version != FORMAT:
        raise AgeGenderError(f"{path} has format {version}, this version of agegender reads {FORMAT}; export it again")
    return found | known
