"""What finding faces is worth: UTKFace's test faces pasted into larger pictures, and answered with and without it.

Each face is answered as the crop that it is, and again from a picture of 900 x 600 pixels into which the crop was
pasted at a random place, shrunk or turned. How far these answers are from those on the crops, and from the truth, is
printed, and refused if it is too far: see `check`. `python -m benchmarks.pasted --data data/UTKFace`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.cli import one_line_errors
from agegender.errors import require
from agegender.prediction.predictor import Detect, Predictor
from benchmarks.faces import data_module, parser

SIZE = 900, 600
Floats = NDArray[np.float64]
NEAR = 2.5  # years that the ages may lie from the crops' in the mean, if faces are found
FAR = 5.0  # and that they lie from them in some way at least, if not: else the pictures would show nothing
# scale and turn in degrees, to the left
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
    """One way of answering for all faces: ages in years and probabilities, NaN where no face was found."""

    age: Floats
    p_female: Floats

    def distance(self, base: Answers) -> Floats:
        """Return how far the ages are from others, in years, where there is one."""
        return np.abs(self.age - base.age)[~np.isnan(self.age)]

    def row(self, base: Answers, age: Floats, gender: Floats) -> str:
        """Return figures: errors of what was answered, distance from the crops' answers, faces without an answer."""
        there, distance = ~np.isnan(self.age), self.distance(base)
        return (
            f"{np.abs(self.age - age)[there].mean():6.2f} {100 * ((self.p_female > 0.5) == gender)[there].mean():7.1f} "
            f"{distance.mean():8.2f} {np.median(distance):8.2f} {np.quantile(distance, 0.95):8.2f} "
            f"{np.abs(self.p_female - base.p_female)[there].mean():9.3f} {(~there).sum():8d}"
        )


def paste(crop: Image.Image, scale: float, turn: float, rng: np.random.Generator) -> Image.Image:
    """Return a picture of blurred colours with a crop somewhere in it."""
    blocks = rng.integers(60, 200, (SIZE[1] // 50, SIZE[0] // 50, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize(SIZE, Image.Resampling.BICUBIC)
    small = crop.resize([round(side * scale) for side in crop.size], Image.Resampling.LANCZOS)
    whole = Image.new("L", small.size, 255)
    small, whole = (image.rotate(turn, Image.Resampling.BICUBIC, expand=True) for image in (small, whole))
    left, top = (int(rng.integers(0, room - side + 1)) for room, side in zip(SIZE, small.size, strict=True))
    picture.paste(small, (left, top), whole)
    return picture


def check(auto: dict[str, float], never: dict[str, float]) -> None:
    """Refuse answers that are too far from the crops' with finding faces, or not far without.

    Args:
        auto: The mean distance in years for each way, with `detect=auto`.
        never: Likewise, with `detect=never`.

    Raises:
        AgeGenderError: A way is beyond `NEAR` with `auto`, or none is beyond `FAR` with `never`.
    """
    beyond = [f"{name}: {years:.2f}" for name, years in auto.items() if not years < NEAR]
    require(not beyond, f"detect=auto answers {NEAR} years or more from the crops' answers ({', '.join(beyond)})")
    most = max(never.values())
    require(
        most > FAR, f"detect=never answers within {most:.2f} years of the crops' answers: such pictures test nothing"
    )


def main() -> None:
    """Print the table and checks it."""
    made = parser(__doc__ or "")
    made.add_argument(
        "--images", type=int, default=500, help="test faces, taken evenly from all in the order of their ages"
    )
    made.add_argument("--weights", default="default")
    chosen = made.parse_args()
    index = data_module(chosen.data).index
    rows = index.rows("test")
    rows, count = rows[np.argsort(index.age[rows], kind="stable")], len(rows)
    rows = rows[np.linspace(0, len(rows) - 1, min(chosen.images, len(rows))).round().astype(int)]
    age, gender = index.age[rows].astype(float), index.gender[rows].astype(float)
    crops = [Image.open(index.folder / index.names[row]).convert("RGB") for row in rows]
    ways: tuple[Detect, ...] = ("never", "auto", "always")
    predictors = {way: Predictor(chosen.weights, "cpu", detect=way) for way in ways}

    def answer(way: Detect, change: Callable[[Image.Image], Image.Image]) -> Answers:
        found = [next(iter(seen.predictions)) for seen in predictors[way].answer(change(crop) for crop in crops)]
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
    with one_line_errors():
        main()
