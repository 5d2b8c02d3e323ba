"""Synthetic data set: generated cartoon faces under UTKFace file names.

It allows a quickstart and the tests to run without a download. Results on it say nothing about real people: ages and
genders are sampled from the distribution below, appearance follows from them in `sources/drawing/person.py`, and the
group code shifts the skin tone slightly and nothing else. A third label can be drawn, see `glasses`.
"""

from __future__ import annotations

import csv
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from agegender.data.index.utkface import GENDERS, GROUPS
from agegender.data.sources.drawing.face import draw_face
from agegender.errors import AgeGenderError, require

__all__ = [
    "IGNORED",
    "NESTED",
    "ODD_READABLE",
    "QUARANTINED",
    "SYNTHETIC_NOTE",
    "TABLE",
    "VERSION",
    "draw_face",
    "duplicates",
    "generate_faces",
]

SYNTHETIC_NOTE = "drawn faces (the figures say nothing about real people)"  # description of the data in a run's results
VERSION = 1  # increment it when the same seed draws other images
MAX_COUNT = 1_000_000  # odd files use the indices from here on

# Files added by `odd_files=True`, for tests of the reader. All but `duplicates` are the same for every seed.
ODD_READABLE = (  # parseable irregular names of UTKFace, and timestamps with a digit less or more
    "24_0_1_20170116220224657 .jpg",
    "55_0_0_20170116232725357jpg.chip.jpg",
    "31_1_2_2017011622022465.jpg.chip.jpg",
    "47_0_3_201701162202246570.jpg.chip.jpg",
)
QUARANTINED = {  # file name -> reason to reject it
    "39_1_20170116174525125.jpg.chip.jpg": "three fields: which one is missing is unknown",
    "61_1_20170109142408075.jpg.chip.jpg": "three fields: which one is missing is unknown",
    "61_1_20170109150557335.jpg.chip.jpg": "three fields: which one is missing is unknown",
    "140_0_0_20170116220224658.jpg.chip.jpg": "age out of range",
    "30_3_0_20170116220224659.jpg.chip.jpg": "gender is neither 0 nor 1",
    "28_1_4_20170116220224660.jpg.chip.jpg": "truncated JPEG",
    "52_0_0_20170116220224661.jpg.chip.jpg": "empty file",
}
TABLE = "labels.csv"  # written with `glasses`; its columns are path, age, gender, group and glasses
IGNORED = ("notes.txt",)  # not an image
NESTED = ("nested/33_1_2_20170116220224662.jpg.chip.jpg",)  # a valid face in a sub-folder

FIRST_STAMP = datetime(2018, 1, 1)  # later than all timestamps above, so that names are unique


def generate_faces(
    folder: str | Path,
    count: int = 2000,
    seed: int = 0,
    size: int = 200,
    *,
    odd_files: bool = False,
    glasses: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Fill a folder with cartoon faces, or return at once if it holds them already.

    Every face depends on (seed, index) only: a larger count keeps the earlier faces, and the number of CPU cores has no
    effect. The folder is created atomically, also when two processes draw it at the same time. Another release of
    Pillow or numpy may encode the same images to other bytes.

    Args:
        folder: Target folder, created with its parents. Put `count`, `seed`, `size` and `VERSION` in its name.
        count: Number of faces, 1 to 1,000,000.
        seed: Non-negative.
        size: Side of the images in pixels, at least 16.
        odd_files: Also write irregular files like those of the real data set: `ODD_READABLE`,
            `QUARANTINED`, `IGNORED`, `NESTED` and `duplicates`.
        glasses: Draw glasses on half of the faces, whatever their age, and write `TABLE` with the label glasses (no,
            yes). All other traits stay as they are without it.
        progress: Callback with the number of faces drawn so far, called in this thread.

    Returns:
        The folder.

    Raises:
        AgeGenderError: An argument is out of range, the folder holds other files, or it can't be written.
    """
    if not 1 <= count <= MAX_COUNT or seed < 0 or size < 16:
        raise AgeGenderError(
            f"Can't draw {count} faces of {size} pixels from seed {seed}: "
            f"set count to 1..{MAX_COUNT}, seed to 0 or more and size to 16 or more."
        )
    require(not (odd_files and glasses), "data.synthetic.odd_files and data.synthetic.glasses: choose one of them")
    folder = Path(folder)
    names = [_traits(seed, index)[1] for index in range(count)]
    expected = {*names, *(_odd_names(count, seed) if odd_files else ()), *([TABLE] if glasses else ())}
    if os.path.lexists(folder):
        return _check_folder(folder, expected, names, size)
    scratch = folder.parent / f".{folder.name}.{os.getpid()}.{threading.get_ident()}"
    try:
        scratch.mkdir(parents=True)
        _draw_all(scratch, count, seed, size, glasses, progress)
        if glasses:
            _write_table(scratch / TABLE, count, seed)
        if odd_files:
            _write_odd_files(scratch, count, seed, size)
        try:
            scratch.rename(folder)
        except OSError:
            if not os.path.lexists(folder):
                raise
            return _check_folder(folder, expected, names, size)  # another process finished first
    except OSError as error:
        raise AgeGenderError(
            f"Can't write the synthetic faces to {folder} ({error.strerror or error}): "
            "free some space, or choose a folder that you may write to."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def duplicates(count: int, seed: int) -> dict[str, str]:
    """Return the copies added by `odd_files`, with their originals.

    The first has the same bytes under another age; the second has the same labels, shifted by a pixel and re-encoded.

    Args:
        count: As for `generate_faces`.
        seed: As for `generate_faces`.

    Returns:
        Name of the copy -> name of the generated face.
    """
    (age, gender, group), original, _ = _traits(seed, 0)
    near, near_original, _ = _traits(seed, count - 1)
    other_age = age + 5 if age <= 95 else age - 5
    return {
        f"{other_age}_{gender}_{group}_20170116220224663.jpg.chip.jpg": original,
        f"{near[0]}_{near[1]}_{near[2]}_20170116220224664.jpg.chip.jpg": near_original,
    }


def _sample_age(rng: np.random.Generator) -> int:
    """Sample an age of 1 to 100 from a mixture of five age groups, infants to old people; the mean is near 35."""
    part = rng.choice(5, p=[0.12, 0.13, 0.36, 0.23, 0.16])
    draws = (
        1 + rng.exponential(1.2),
        rng.uniform(5, 18),
        rng.normal(27, 6),
        rng.normal(47, 9),
        rng.normal(74, 10),
    )
    return int(np.clip(draws[part], 1, 100))


def _traits(seed: int, index: int) -> tuple[tuple[int, int, int], str, np.random.Generator]:
    """Return a face's labels (age, gender, group), its file name, and the generator of its remaining traits."""
    rng = np.random.default_rng([seed, index])
    age, gender, group = _sample_age(rng), int(rng.integers(2)), int(rng.integers(5))
    stamp = FIRST_STAMP + timedelta(milliseconds=61_357 * index)
    digits = f"{stamp:%Y%m%d%H%M%S}{stamp.microsecond // 1000:03d}"
    return (age, gender, group), f"{age}_{gender}_{group}_{digits}.jpg.chip.jpg", rng


def _glasses(seed: int, index: int) -> str:
    """Return the glasses of a face with the label glasses, independent of its other traits."""
    rng = np.random.default_rng([seed, index, 1])
    return ("none", "none", "round", "square")[int(rng.integers(4))]


def _write_table(path: Path, count: int, seed: int) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "age", "gender", "group", "glasses"])
        for index in range(count):
            (age, gender, group), name, _ = _traits(seed, index)
            glasses = "no" if _glasses(seed, index) == "none" else "yes"
            writer.writerow([name, age, GENDERS[gender], GROUPS[group], glasses])


def _write_face(
    folder: Path, seed: int, index: int, size: int, name: str | None = None, glasses: str | None = None
) -> None:
    (age, gender, group), own_name, rng = _traits(seed, index)
    face = draw_face(age, gender, group, rng, size, glasses)
    face.save(folder / (name or own_name), format="JPEG", quality=int(rng.integers(60, 96)))


def _draw_all(
    folder: Path, count: int, seed: int, size: int, glasses: bool, progress: Callable[[int], None] | None
) -> None:
    """Draw the faces in threads: unlike processes they need no guarded main module, and Pillow releases the GIL."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        try:
            tasks = []
            for index in range(count):
                worn = _glasses(seed, index) if glasses else None
                tasks.append(pool.submit(_write_face, folder, seed, index, size, glasses=worn))
            for done, task in enumerate(as_completed(tasks), start=1):
                task.result()
                if progress is not None:
                    progress(done)
        except BaseException:  # includes Ctrl+C: cancel the remaining faces
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _odd_names(count: int, seed: int) -> tuple[str, ...]:
    return (*ODD_READABLE, *QUARANTINED, *IGNORED, *NESTED, *duplicates(count, seed))


def _write_odd_files(folder: Path, count: int, seed: int, size: int) -> None:
    for index, name in enumerate((*ODD_READABLE, *QUARANTINED, *NESTED), start=MAX_COUNT):
        (folder / name).parent.mkdir(exist_ok=True)
        _write_face(folder, seed, index, size, name)
    for name, why in QUARANTINED.items():
        if why == "truncated JPEG":
            os.truncate(folder / name, (folder / name).stat().st_size // 2)
        elif why == "empty file":
            os.truncate(folder / name, 0)
    for name in IGNORED:
        (folder / name).write_text("Not an image: a reader must pass over it.\n", encoding="utf-8")
    (same, same_of), (near, near_of) = duplicates(count, seed).items()
    shutil.copyfile(folder / same_of, folder / same)
    with Image.open(folder / near_of) as image:
        pixels = np.roll(np.asarray(image), 1, axis=1)
    Image.fromarray(pixels).save(folder / near, format="JPEG", quality=88)


def _check_folder(folder: Path, expected: Iterable[str], names: list[str], size: int) -> Path:
    """Return the folder if it holds exactly the expected files, ignoring hidden ones such as .DS_Store."""
    remedy = "choose another folder, or delete this one to draw it again."
    if not folder.is_dir():
        raise AgeGenderError(f"{folder} is not a folder, and it is in the way of the synthetic faces: {remedy}")
    files = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    found = {path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts)}
    if found != set(expected):
        odd = sorted(found.symmetric_difference(expected))[0]
        state = "unexpected" if odd in found else "missing"
        raise AgeGenderError(
            f"{folder} holds other files than the {len(names)} faces asked for ({odd} is {state}): {remedy}"
        )
    for name in (names[0], names[-1]):
        try:
            with Image.open(folder / name) as image:
                sides = image.size
        except OSError:
            sides = (0, 0)
        if sides != (size, size):
            raise AgeGenderError(f"{folder / name} is not an image of {size} x {size} pixels: {remedy}")
    return folder
