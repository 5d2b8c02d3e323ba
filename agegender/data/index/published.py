"""Published splits: a CSV of file names, given by the user or carried by the package."""

from __future__ import annotations

import csv
import gzip
import logging
from collections.abc import Sequence
from pathlib import Path

from agegender.data.index.split import SPLITS, UNUSED
from agegender.errors import AgeGenderError

log = logging.getLogger(__name__)

# UTKFace's names in the training and test lists of CORAL (Cao, Mirjalili and Raschka 2020), which MWR (Shin, Lee and
# Kim 2022) uses too: ages 21 to 60. From the CSV files of github.com/Raschka-research-group/coral-cnn.
CORAL = Path(__file__).with_name("utkface_coral.csv.gz")


def read_coral(names: Sequence[str], quarantined: set[str]) -> list[str]:
    """Return the split of each image in CORAL's lists, see `read_split_file`.

    Raises:
        AgeGenderError: The folder lacks listed images.
    """
    return read_split_file(CORAL, names, quarantined, "data.split=coral, the lists of UTKFace's faces from 21 to 60,")


def read_split_file(path: Path, names: Sequence[str], quarantined: set[str], described: str | None = None) -> list[str]:
    """Read a published protocol: CSV with a header and the columns `file` and `split` (train, val or test).

    Args:
        path: The CSV file; compressed by gzip if its name ends with `.gz`.
        names: The readable images, in the index's order.
        quarantined: Rejected files of the folder, which a protocol may name.
        described: The file, for messages about its contents; None for its path.

    Returns:
        The split of each name; `unused` for an image that the protocol doesn't list.

    Raises:
        AgeGenderError: The file is missing or malformed, or names images that are not in the folder.
    """
    if not path.is_file():
        raise AgeGenderError(f"data.split_file={path} does not exist")
    sides: dict[str, str] = {}
    opened = gzip.open if path.suffix == ".gz" else open
    # Excel writes a byte order mark
    with opened(path, "rt", newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if not {"file", "split"} <= set(reader.fieldnames or ()):
            raise AgeGenderError(f"{path} needs a header line with the columns file, split; it has {reader.fieldnames}")
        for row in reader:
            if row["split"] not in SPLITS:
                raise AgeGenderError(f"{path}, line {reader.line_num}: split {row['split']!r} is not one of {SPLITS}")
            name = Path(row["file"] or "").name
            if sides.setdefault(name, row["split"]) != row["split"]:
                raise AgeGenderError(f"{path}, line {reader.line_num}: {name!r} is in {sides[name]} and {row['split']}")
    described = described or str(path)
    missing = sorted(set(sides) - set(names) - quarantined)
    if missing:
        raise AgeGenderError(
            f"{described} names {len(missing)} images that are not in the folder, the first {missing[0]!r}: complete the "
            "folder, or choose another split"
        )
    unused = sum(name not in sides for name in names)
    if unused:
        log.info("%s does not list %d of %d images: they are left out", described, unused, len(names))
    return [sides.get(name, UNUSED) for name in names]
