"""From `predict.py`'s settings to answers, and the exit code that says whether all went well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from agegender.allocation import keep_freed_memory
from agegender.checkpoint import DEFAULT
from agegender.errors import AgeGenderError
from agegender.prediction.inputs import list_images
from agegender.prediction.outputs import check_output, print_table, write_file
from agegender.prediction.predictor import Predictor
from agegender.progress import track


def predict(
    img: str | list[str] | None,
    weights: str = DEFAULT,
    out: str | None = None,
    batch_size: int = 64,
    device: str = "auto",
    tta: Literal["none", "flip"] = "none",
) -> bool:
    """Answers for pictures, on the terminal or into a file.

    Args:
        img: File, folder or glob, or a list of them.
        weights: See `Predictor`.
        out: A file ending in .csv or .json, instead of the table.
        batch_size: Pictures per pass through the network.
        device: `auto`, `cpu`, `cuda`, ...
        tta: See `Predictor`.

    Returns:
        Whether every picture got its answer.

    Raises:
        AgeGenderError: Anything that concerns all pictures; what concerns one is in its row.
    """
    if not img:
        raise AgeGenderError("which picture? python predict.py img=face.jpg (or a folder, or a glob)")
    if batch_size < 1:
        raise AgeGenderError(f"batch_size={batch_size} must be at least 1")
    if out is not None:
        check_output(Path(out))
    images = list_images([img] if isinstance(img, str) else img)
    keep_freed_memory()  # a photograph of 12 megapixels takes 100 MB, each anew: a third of its time
    predictor = Predictor(weights, device, tta)
    print(f"weights: {predictor.weights}", file=sys.stderr)
    if predictor.trained_on_drawings:
        print("warning: trained on drawn faces: the answers say nothing about real people", file=sys.stderr)
    answers = track(predictor.predict(images, batch_size), "predicting", len(images))
    count, failed = write_file(Path(out), answers) if out is not None else print_table(answers)
    if out is not None:
        print(f"{count} pictures in {out}", file=sys.stderr)
    if failed:
        print(f"{failed} of {count} pictures have no answer; the error column says why", file=sys.stderr)
    return not failed
