"""Inference backend for exported networks: ONNX Runtime on the CPU, without importing PyTorch."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agegender.errors import AgeGenderError, missing_extra, require
from agegender.tasks.info import AGE, check_thresholds, read_tasks, tail_column

FORMAT = 4  # version of the graph's interface and metadata; incremented when older versions would misread them
INPUT = "pixels"
EXPORT = "agegender export weights={} out=model.onnx"
BUNDLED_NAMES = ("default", "face", "small")  # `checkpoint.BUNDLED_WEIGHTS`, which imports PyTorch
# In the package, in int8, by `agegender export weights=small precision=int8 check=data/UTKFace out=small.onnx`; `face`,
# the default of PyTorch, would take 4.4 MB.
BUNDLED_FILE = Path(__file__).parents[2] / "weights" / "small.onnx"
_CHECKSUM = "sha256"  # metadata entry
_A_CHECKPOINT = "<run folder or checkpoint>"


class OnnxBackend:
    """An exported network, run by ONNX Runtime; see `backend.Backend`.

    Attributes:
        metadata: Metadata of the file, see `onnx_graph.metadata`.
    """

    prefers_large_batches = False

    def __init__(self, weights: str | Path, thresholds: Sequence[int] = ()):
        """Load an exported network.

        Args:
            weights: A file written by `agegender.prediction.export`; or `small` or `default` for the bundled one, whose
                name is printed for `default`.
            thresholds: Ages that the file must have been exported with; all of its outputs are predicted anyway.

        Raises:
            AgeGenderError: The file doesn't exist, is damaged, was not exported by this package or lacks a threshold,
                or ONNX Runtime is missing.
        """
        require(weights != "face", f"weights=face needs an exported file with backend=onnx: {EXPORT.format('face')}")
        if weights == "default":
            line = "backend=onnx takes weights=small, the bundled network in int8; for the default one,"
            print(f"{line} {EXPORT.format('face')}", file=sys.stderr)
        self.weights = BUNDLED_FILE if weights in BUNDLED_NAMES else Path(weights)
        self._content = _read(self.weights)
        self._session = _open(self._content, self.weights)
        self.metadata = _metadata(self._session, self.weights)
        self.tasks = read_tasks(self.metadata["tasks"])
        self._columns = [name for info in self.tasks for name in info.columns]
        check_thresholds(thresholds)
        for threshold in thresholds:
            again = f"export it again with thresholds=[{','.join(map(str, thresholds))}]"
            known = tail_column(AGE, threshold) in self._columns
            require(known, f"{self.weights} has no output for thresholds=[{threshold}]: {again}")
        self.trained_on_synthetic: bool = self.metadata["trained_on_synthetic"]
        self.image_size: int = self.metadata["image_size"]
        self.grayscale = self.metadata["channels"] == 1

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """Run the network; see `backend.Backend`."""
        images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        outputs: list[NDArray[np.float32]] = self._session.run(self._columns, {INPUT: images})
        return {name: values.astype(np.float64) for name, values in zip(self._columns, outputs, strict=True)}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the session, which can't be pickled."""
        return {name: value for name, value in vars(self).items() if name != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state, and the session from the file's content, which may be gone or another one by now."""
        vars(self).update(state, _session=_open(state["_content"], state["weights"]))

    def worker_context(self) -> AbstractContextManager[None]:
        """Return a null context: a session is thread-safe."""
        return nullcontext()

    def init_worker(self) -> None:
        """Do nothing: `_open` limits each call to one thread."""


def with_checksum(model: bytes) -> bytes:
    """Append the SHA-256 of an ONNX file to it, as the last entry of its metadata.

    Repeated fields of a protobuf message may come in any place, so an entry can be appended to the bytes of the others.
    """
    key, value = _CHECKSUM.encode(), hashlib.sha256(model).hexdigest().encode()
    entry = b"\x0a%c%b\x12%c%b" % (len(key), key, len(value), value)  # fields 1 and 2 of StringStringEntryProto
    return model + b"\x72%c%b" % (len(entry), entry)  # field 14 of ModelProto


_APPENDED = len(with_checksum(b""))


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise AgeGenderError(f"{path} is a folder; backend=onnx needs a file: {EXPORT.format(path)}")
    require(path.is_file(), f"no model at {path.resolve()}; export one: {EXPORT.format(_A_CHECKPOINT)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AgeGenderError(f"{path} can't be read ({error.strerror})") from None
    damaged = _CHECKSUM.encode() in content[-_APPENDED:] and with_checksum(content[:-_APPENDED]) != content
    require(not damaged, f"{path} is damaged: its checksum doesn't match; export it again")
    return content


def _open(content: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("backend=onnx", error, "onnx") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the other workers use the other cores
    options.log_severity_level = 3  # errors only: users can't act on the warnings
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        reason = " ".join(str(error).split())[:150]
        again = EXPORT.format(_A_CHECKPOINT if path.suffix == ".onnx" else path)
        raise AgeGenderError(f"{path} is no ONNX model ({reason}); export one: {again}") from None


def _metadata(session: Any, path: Path) -> dict[str, Any]:
    """Return the metadata of a file.

    Raises:
        AgeGenderError: The file was not exported by this package, or by a version with another format.
    """
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    wanted = ("image_size", "channels", "tasks", "trained_on_synthetic")
    try:
        version = json.loads(found["agegender_format"])
        parsed = {name: json.loads(found[name]) for name in wanted} if version == FORMAT else {}
    except (KeyError, ValueError):
        raise AgeGenderError(
            f"{path} is an ONNX model without agegender's metadata; export one: " + EXPORT.format(_A_CHECKPOINT)
        ) from None
    if version != FORMAT:
        raise AgeGenderError(f"{path} has format {version}, this version of agegender reads {FORMAT}; export it again")
    require(_CHECKSUM in found, f"{path} is damaged: its checksum is missing; export it again")
    return found | parsed
