"""Measure the landmark template of UTKFace's crops, and the landmarks within the detector's boxes.

`python -m benchmarks.face_template data/UTKFace`

The printed values are the constants of `agegender/prediction/faces/alignment.py` and `given.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agegender.cli.main import report_errors
from agegender.data.decode import UnreadableImageError, read_image
from agegender.errors import require
from agegender.prediction.faces.alignment import TEMPLATE, TOLERANCE, Points
from agegender.prediction.faces.detector import FaceDetector
from agegender.prediction.images.listing import list_images
from agegender.system.parallel import map_threads


def landmarks_of(paths: Sequence[str]) -> tuple[Points, Points]:
    """Detect the landmarks of the largest face in each image; images without a face are skipped.

    Returns:
        `[faces, 5, 2]`, as fractions of the images' sides; and for the boxes that don't reach a border, of the box's.
    """
    finder = FaceDetector()

    def work(path: str) -> tuple[Points, Points | None] | None:
        try:
            picture = read_image(path)
        except UnreadableImageError:
            return None
        faces = finder.detect(picture)
        if not faces:
            return None
        (left, top, right, bottom), landmarks = faces[0].box, faces[0].landmarks
        whole = left > 0 and top > 0 and right < picture.width and bottom < picture.height
        inside = (landmarks - (left, top)) / (right - left, bottom - top) if whole else None
        return landmarks / picture.size, inside

    found = [points for points in map_threads(work, paths, "finding faces") if points is not None]
    boxed = [inside for _, inside in found if inside is not None]
    return np.array([points for points, _ in found]).reshape(-1, 5, 2), np.array(boxed).reshape(-1, 5, 2)


def main() -> None:
    """Print the template, and quantiles of the distances from it."""
    given = sys.argv[1:]
    with report_errors():
        fits = 1 <= len(given) <= 2 and (len(given) == 1 or given[1].isdecimal())
        require(fits, "python -m benchmarks.face_template <folder of crops> [how many, evenly spread]")
        paths = list_images(given[:1])
        if len(given) == 2 and 0 < int(given[1]) < len(paths):
            paths = [paths[row] for row in np.linspace(0, len(paths) - 1, int(given[1])).round().astype(int)]
        landmarks, boxed = landmarks_of(paths)
        require(len(landmarks) > 0, f"no face found in {Path(given[0])}")
        template = np.median(landmarks, 0)
        distance = np.sqrt(((landmarks - TEMPLATE) ** 2).sum(2).mean(1))
        print(f"a face in {len(landmarks):,} of {len(paths):,} pictures")
        print("median places:", ", ".join(f"({x:.4f}, {y:.4f})" for x, y in template))
        if len(boxed):
            places = ", ".join(f"({x:.4f}, {y:.4f})" for x, y in np.median(boxed, 0))
            print(f"median places in the boxes of {len(boxed):,} faces that lie within the picture: {places}")
        quantiles = ", ".join(
            f"{100 * share:g} % within {np.quantile(distance, share):.4f}" for share in (0.5, 0.9, 0.99)
        )
        within = f"{100 * (distance <= TOLERANCE).mean():.2f} % within {TOLERANCE}"
        print(f"distance from the template in use: {quantiles}; {within}")


if __name__ == "__main__":
    main()
