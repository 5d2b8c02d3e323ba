"""Evaluate weights on one photograph under 17 edits that change neither age nor gender.

The photograph is scikit-image's portrait of an astronaut, a woman of about 42, in the public domain. The predictor
detects the face (`detect=auto`). Goals, for the photograph and every edit: `p_female` of at least 0.85, and an age from
28 to 50. `python -m benchmarks.astronaut [--json FILE]`; needs scikit-image.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from agegender.cli.main import report_errors
from agegender.errors import missing_extra
from agegender.prediction.prediction import Prediction, to_row
from agegender.prediction.predictor import Predictor
from agegender.system.files import atomic_write
from benchmarks.heading import heading, named_weights

LEAST_FEMALE = 0.85
YOUNGEST, OLDEST = 28.0, 50.0
UNEDITED = "unedited"
_SHOWN = ("age", "age_low", "age_high", "p_female", "gender")

Edit = Callable[[Image.Image], Image.Image]


def photograph() -> Image.Image:
    """Return the photograph of 512 x 512 pixels; UTKFace's crop of the face would have 105 x 105.

    Raises:
        AgeGenderError: scikit-image is missing.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise missing_extra("the photograph", error, "dev") from None
    return Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]


def _scaled(wide: float, high: float) -> Edit:
    def edit(picture: Image.Image) -> Image.Image:
        size = round(picture.width * wide), round(picture.height * high)
        return picture.resize(size, Image.Resampling.LANCZOS)

    return edit


def _stored(quality: int) -> Edit:
    def edit(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return edit


def _turned(degrees: float) -> Edit:
    return lambda picture: picture.rotate(degrees, Image.Resampling.BICUBIC)  # counterclockwise; corners are black


def _quarters(method: Image.Transpose) -> Edit:
    return lambda picture: picture.transpose(method)


def _lit(factor: float) -> Edit:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def _noisy(levels: float) -> Edit:
    def edit(picture: Image.Image) -> Image.Image:
        # the same in all three channels: independent noise would mostly average out in a gray image
        noise = np.random.default_rng(0).normal(0, levels, (picture.height, picture.width, 1))
        return Image.fromarray((np.asarray(picture) + noise).round().clip(0, 255).astype(np.uint8))

    return edit


EDITS: dict[str, Edit] = {
    "mirror": _quarters(Image.Transpose.FLIP_LEFT_RIGHT),
    "half": _scaled(0.5, 0.5),
    "quarter": _scaled(0.25, 0.25),
    "jpeg_30": _stored(30),
    "jpeg_10": _stored(10),
    "turn_left_10": _turned(10),
    "turn_right_10": _turned(-10),
    "darker": _lit(0.5),
    "brighter": _lit(1.5),
    "gray": lambda picture: picture.convert("L").convert("RGB"),
    "noise_10": _noisy(10),
    "blur": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
    "sharpen": lambda picture: picture.filter(ImageFilter.UnsharpMask(2, 150, 0)),
    "squeeze_4_3": _scaled(0.75, 1),
    "rotate_90": _quarters(Image.Transpose.ROTATE_90),
    "rotate_180": _quarters(Image.Transpose.ROTATE_180),
    "rotate_270": _quarters(Image.Transpose.ROTATE_270),
}


def pictures(picture: Image.Image) -> dict[str, Image.Image]:
    """Return the image unedited and under each edit, by name."""
    return {UNEDITED: picture} | {name: edit(picture) for name, edit in EDITS.items()}


def summary(answers: dict[str, Prediction]) -> dict[str, Any]:
    """Return the worst predictions, and whether each goal is met; a face that is not found misses both.

    Args:
        answers: Predictions of the largest face, by edit.
    """
    found = [(one.age, one.p_female) for one in answers.values() if one.age is not None and one.p_female is not None]
    ages, p_female = zip(*found, strict=True) if found else ((), ())
    whole = len(found) == len(answers)
    return {
        "found": len(found),
        "pictures": len(answers),
        "p_female_min": min(p_female, default=None),
        "age_min": min(ages, default=None),
        "age_max": max(ages, default=None),
        "p_female_met": whole and min(p_female) >= LEAST_FEMALE,
        "age_met": whole and min(ages) >= YOUNGEST and max(ages) <= OLDEST,
    }


def show(answers: dict[str, Prediction]) -> str:
    """Return the table: a line for each edit, with the goals that it misses."""
    lines = [f"{'edit':<15}{'age':>6}{'80 %':>10}{'p_female':>10}  gender"]
    for name, one in answers.items():
        if one.age is None or one.p_female is None:
            lines.append(f"{name:<15}{one.error}")
            continue
        within = "-" if one.age_low is None else f"{one.age_low:.0f} to {one.age_high:.0f}"
        missed = [] if one.p_female >= LEAST_FEMALE else [f"p_female below {LEAST_FEMALE}"]
        missed += [] if YOUNGEST <= one.age <= OLDEST else [f"age outside {YOUNGEST:g} to {OLDEST:g}"]
        line = f"{name:<15}{one.age:>6.1f}{within:>10}{one.p_female:>10.3f}  {one.gender}"
        lines.append(f"{line:<51}{'; '.join(missed)}".rstrip())
    return "\n".join(lines)


def verdict(worst: dict[str, Any]) -> str:
    """Return a line for each goal."""
    if not worst["found"]:
        return "the face was found in no image: both goals missed"
    gender, age = ("met" if worst[goal] else "missed" for goal in ("p_female_met", "age_met"))
    return "\n".join(
        [
            f"face found in {worst['found']} of {worst['pictures']} images",
            f"p_female: {worst['p_female_min']:.3f} at least; goal {LEAST_FEMALE} in each: {gender}",
            f"age: {worst['age_min']:.1f} to {worst['age_max']:.1f}; goal {YOUNGEST:g} to {OLDEST:g} in each: {age}",
        ]
    )


def main() -> None:
    """Print the table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--json", type=Path, help="JSON file for the same results")
    chosen = parser.parse_args()
    predictor = Predictor(chosen.weights, "cpu")
    edited = pictures(photograph())
    answers = {name: of[0] for name, of in zip(edited, predictor(list(edited.values())), strict=True)}
    worst, name = summary(answers), named_weights(chosen.weights, predictor.weights)
    print(heading("astronaut", name))
    print(show(answers))
    print(verdict(worst))
    if chosen.json is not None:
        rows = {edit: to_row(one, predictor.tasks) for edit, one in answers.items()}
        rows = {edit: {key: row[key] for key in (*_SHOWN, "error")} for edit, row in rows.items()}
        with atomic_write(chosen.json, "w", encoding="utf-8") as file:
            json.dump({"weights": name, **worst, "edits": rows}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    with report_errors():
        main()
