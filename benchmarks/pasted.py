"""Effect of face detection: predictions on UTKFace's test faces pasted into larger images, with and without it.

Each face is predicted from its crop, and again from an image of 900 x 600 pixels into which the crop was pasted at a
random position, scaled or rotated. The table shows the distance of these predictions from those on the crops, and their
errors. Too large a distance is an error; see `check`. `python -m benchmarks.pasted --data data/UTKFace`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.cli.main import report_errors
from agegender.errors import require
from agegender.prediction.predictor import Detect, Predictor
from benchmarks.faces import data_module, parser

SIZE = 900, 600
Floats = NDArray[np.float64]
NEAR = 2.5  # years: upper bound of the mean distance from the crops' ages with detection
FAR = 5.0  # years: lower bound of the largest mean distance without detection; below it, the test is too easy
# scale, and counterclockwise rotation in degrees
WAYS = {
    "pasted": (1.0, 0),
    "half the size": (0.5, 0),
    "a quarter": (0.25, 0),
    "turned by 20": (1.0, 20),
    "turned by 90": (1.0, 90),
    "turned by 180": (1.0, 180),
}


@dataclass(frozen=True)
class Answers:
    """Predictions for all faces: ages in years and probabilities, NaN where no face was found."""

    age: Floats
    p_female: Floats

    def distance(self, base: Answers) -> Floats:
        """Return the absolute age differences from `base` in years, of the faces that were found."""
        return np.abs(self.age - base.age)[~np.isnan(self.age)]

    def row(self, base: Answers, age: Floats, gender: Floats) -> str:
        """Return a table row: errors, distance from the predictions on the crops, and number of faces not found.

        Args:
            base: Predictions on the crops.
            age: True ages in years.
            gender: True genders, 0 = male, 1 = female.
        """
        there, distance = ~np.isnan(self.age), self.distance(base)
        return (
            f"{np.abs(self.age - age)[there].mean():6.2f} {100 * ((self.p_female > 0.5) == gender)[there].mean():7.1f} "
            f"{distance.mean():8.2f} {np.median(distance):8.2f} {np.quantile(distance, 0.95):8.2f} "
            f"{np.abs(self.p_female - base.p_female)[there].mean():9.3f} {(~there).sum():8d}"
        )


def paste(crop: Image.Image, scale: float, turn: float, rng: np.random.Generator) -> Image.Image:
    """Return an image of blurred colors with the crop at a random position, scaled and rotated."""
    blocks = rng.integers(60, 200, (SIZE[1] // 50, SIZE[0] // 50, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize(SIZE, Image.Resampling.BICUBIC)
    small = crop.resize([round(side * scale) for side in crop.size], Image.Resampling.LANCZOS)
    whole = Image.new("L", small.size, 255)
    small, whole = (image.rotate(turn, Image.Resampling.BICUBIC, expand=True) for image in (small, whole))
    left, top = (int(rng.integers(0, room - side + 1)) for room, side in zip(SIZE, small.size, strict=True))
    picture.paste(small, (left, top), whole)
    return picture


def check(auto: dict[str, float], never: dict[str, float]) -> None:
    """Check that predictions are close to those on the crops with detection, and far from them without.

    Args:
        auto: Mean distance in years for each of `WAYS`, with `detect=auto`.
        never: The same with `detect=never`.

    Raises:
        AgeGenderError: A distance is `NEAR` or more with `auto`, or none is above `FAR` with `never`.
    """
    beyond = [f"{name}: {years:.2f}" for name, years in auto.items() if not years < NEAR]
    require(not beyond, f"detect=auto predicts ages {NEAR} years or more from the crops' ages ({', '.join(beyond)})")
    most = max(never.values())
    require(most > FAR, f"detect=never predicts ages within {most:.2f} years of the crops' ages: the test is too easy")


def main() -> None:
    """Print the table and check it."""
    made = parser(__doc__ or "")
    made.add_argument(
        "--images", type=int, default=500, help="number of test faces, evenly spaced in the order of ages"
    )
    made.add_argument("--weights", default="default")
    chosen = made.parse_args()
    index = data_module(chosen.data).index
    rows = index.rows("test")
    rows, count = rows[np.argsort(index.labels["age"][rows], kind="stable")], len(rows)
    rows = rows[np.linspace(0, len(rows) - 1, min(chosen.images, len(rows))).round().astype(int)]
    age, gender = (index.labels[name][rows].astype(float) for name in ("age", "gender"))
    crops = [Image.open(index.folder / index.names[row]).convert("RGB") for row in rows]
    ways: tuple[Detect, ...] = ("never", "auto", "always")
    predictors = {way: Predictor(chosen.weights, "cpu", detect=way) for way in ways}

    def answer(way: Detect, change: Callable[[Image.Image], Image.Image]) -> Answers:
        found = [
            next(iter(seen.predictions)) for seen in predictors[way].predict_images(change(crop) for crop in crops)
        ]
        columns = np.array([(face.age, face.p_female) for face in found], dtype=np.float64)
        return Answers(columns[:, 0], columns[:, 1])

    base = answer("never", lambda crop: crop)
    print(f"{len(rows)} test faces of split {index.fingerprint}, every {count / len(rows):.1f}th by age")
    heads = f"{'MAE':>6} {'gender':>7} {'distance':>8} {'median':>8} {'95 %':>8} {'p apart':>9} {'no face':>8}"
    print(f"{'':<16}{'detect':<8}{heads}")
    for way in ways:
        print(f"{'the crops':<16}{way:<8}{answer(way, lambda crop: crop).row(base, age, gender)}", flush=True)
    means: dict[str, dict[str, float]] = {"auto": {}, "never": {}}
    for name, (scale, turn) in WAYS.items():
        for way in ("auto", "never"):
            rng = np.random.default_rng(0)
            found = answer(way, lambda crop, rng=rng, scale=scale, turn=turn: paste(crop, scale, turn, rng))  # type: ignore[misc]
            print(f"{name:<16}{way:<8}{found.row(base, age, gender)}", flush=True)
            means[way][name] = float(found.distance(base).mean())
    check(means["auto"], means["never"])


if __name__ == "__main__":
    with report_errors():
        main()
