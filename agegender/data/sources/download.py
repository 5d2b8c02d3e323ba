"""Download UTKFace from Kaggle if there is no local copy."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

from agegender.data.index.utkface import has_utkface_files
from agegender.errors import AgeGenderError, require

log = logging.getLogger(__name__)

KAGGLE_DATASET = "jangedoo/utkface-new"  # public, no account needed; UTKFace's license: non-commercial research


def fetch_utkface(cache_dir: Path, wanted: Path) -> Path:
    """Return the folder of UTKFace's images in the cache, downloading it first (about 330 MB) if it doesn't exist.

    The archive is downloaded and unpacked in a temporary folder, which is renamed on success and removed on failure.

    Args:
        cache_dir: Parent of the `utkface` folder.
        wanted: The `data.dir` that doesn't exist, for messages.

    Raises:
        AgeGenderError: The download failed; the message names the three alternatives.
    """
    target = cache_dir / "utkface"
    if target.is_dir():
        log.warning("%s does not exist: using the copy of UTKFace that was downloaded before, %s", wanted, target)
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".utkface-", suffix=".partial", dir=cache_dir))
    except OSError as error:
        raise AgeGenderError(
            f"data.dir={wanted} does not exist and UTKFace can't be downloaded into {cache_dir} ({error.strerror}); "
            "give the folder of images, or choose a folder for downloads with data.cache_dir=..."
        ) from None
    log.info("%s does not exist: downloading UTKFace (%s, about 330 MB) into %s", wanted, KAGGLE_DATASET, cache_dir)
    try:
        unpacked = _download(work)
        _refuse_links(unpacked)
        os.rename(largest_folder_of_faces(unpacked), target)
    except AgeGenderError:
        raise
    except Exception as error:
        if target.is_dir():  # another process finished first
            return target
        offline = "Connect" in type(error).__name__ or "Timeout" in type(error).__name__
        reason = (
            "Kaggle can't be reached" if offline else f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        )
        raise AgeGenderError(
            f"data.dir={wanted} does not exist and UTKFace could not be downloaded ({reason}). "
            "Set data.dir=... to the folder of images, go online and run the command again, or train on drawn faces "
            "with data=synthetic"
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(folder: Path) -> Path:
    # kagglehub reads its folder from the environment; the import takes a second, so it is made only for a download.
    previous = os.environ.get("KAGGLEHUB_CACHE")
    os.environ["KAGGLEHUB_CACHE"] = str(folder)
    try:
        import kagglehub

        return Path(kagglehub.dataset_download(KAGGLE_DATASET))
    finally:
        if previous is None:
            del os.environ["KAGGLEHUB_CACHE"]
        else:
            os.environ["KAGGLEHUB_CACHE"] = previous


def _refuse_links(unpacked: Path) -> None:
    """Refuse an archive with links: UTKFace's has none, and a link could point to any file of this computer.

    Member paths outside the archive's folder are refused, or unpacked inside it, by Python's own readers.
    """
    for folder, folders, files in os.walk(unpacked):
        for name in (*folders, *files):
            refused = f"the downloaded archive of {KAGGLE_DATASET} contains a link, {name!a}, and is refused"
            is_link = os.path.islink(os.path.join(folder, name))
            require(not is_link, f"{refused}; set data.dir=... to a folder of images instead")


def largest_folder_of_faces(root: Path) -> Path:
    """Return the folder below `root` that directly holds the most UTKFace-named images.

    Kaggle's archive holds the set twice (`UTKFace`, and again nested) beside a subset (`crop_part1`). A single folder
    holds each image once; ties go to the folder nearest the root, then to the first by name.

    Raises:
        AgeGenderError: No folder holds such an image.
    """
    folders = [folder for folder, _, _ in os.walk(root) if has_utkface_files(Path(folder))]
    if not folders:
        raise AgeGenderError(
            f"the downloaded archive of {KAGGLE_DATASET} contains no UTKFace-named image; set data.dir=... instead"
        )
    return Path(min(folders, key=lambda folder: (-len(os.listdir(folder)), folder.count(os.sep), folder)))
