"""The crops of the faces in images: read, detect, align, and scale to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agegender.data.decode import UnreadableImageError, eval_transform, read_image
from agegender.errors import AgeGenderError
from agegender.prediction.faces.alignment import align_crop, is_aligned_crop
from agegender.prediction.faces.detector import Face, FaceDetector
from agegender.prediction.faces.given import locate_faces
from agegender.prediction.images.sources import Color, ImageInput, NamedImage, as_named_image, file_stamp
from agegender.prediction.prediction import NO_FACE


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image with its faces and their crops, or with an error.

    Attributes:
        path: Name of the image.
        faces: Its faces; None for an image that was taken for a crop without detection.
        pixels: The crop of each, as the network's input.
        error: Why there are none.
        picture: The upright image, if it is kept.
        stamp: State of its file before it was read, see `file_stamp`.
    """

    path: str
    faces: Sequence[Face | None] = ()
    pixels: Sequence[NDArray[np.uint8]] = ()
    error: str | None = None
    picture: Image.Image | None = None
    stamp: str | None = None


@dataclass(frozen=True)
class FaceCropper:
    """Crop the faces of images.

    Attributes:
        detector: None to take an image for a crop, or to place the crops of given boxes by the boxes alone.
        keeps_crops: Whether an image that is aligned like UTKFace's crops already is used as it is.
        image_size: Side of the network's input in pixels.
        grayscale: Whether it is gray.
        color: Order of the channels of arrays and tensors.
    """

    detector: FaceDetector | None
    keeps_crops: bool
    image_size: int
    grayscale: bool
    color: Color

    def crop(self, images: Sequence[ImageInput | NamedImage], keep_pictures: bool) -> list[DecodedImage]:
        """Return the crops of images; with their pictures if `keep_pictures`."""
        cropped = []
        for image in images:
            named = as_named_image(image, self.color)
            stamp = file_stamp(named.path)  # before it is read: a later change is noticed
            one = self._crop_one(named)
            cropped.append(replace(one, picture=one.picture if keep_pictures else None, stamp=stamp))
        return cropped

    def _crop_one(self, image: NamedImage) -> DecodedImage:
        try:
            picture = read_image(image.read())
        except UnreadableImageError as error:
            return DecodedImage(image.path, error=str(error))
        try:
            faces = self._faces(image, picture)
        except AgeGenderError as error:  # a box outside the image
            return DecodedImage(image.path, error=str(error), picture=picture)
        except Exception as error:  # OpenCV has limits, such as 32,766 pixels a side
            reason = " ".join(str(error).split())
            return DecodedImage(image.path, error=f"face detection failed: {reason[:120]}", picture=picture)
        if faces is None:
            return DecodedImage(image.path, [None], [self._pixels(picture)], picture=picture)
        if not faces:
            return DecodedImage(image.path, error=NO_FACE, picture=picture)
        is_single = image.faces is None or len(faces) == 1
        if self.keeps_crops and is_single and is_aligned_crop(faces[0].landmarks, *picture.size):
            return DecodedImage(image.path, faces[:1], [self._pixels(picture)], picture=picture)
        crops = [self._pixels(align_crop(picture, face.landmarks, self.image_size)) for face in faces]
        return DecodedImage(image.path, faces, crops, picture=picture)

    def _faces(self, image: NamedImage, picture: Image.Image) -> list[Face] | None:
        """Return the faces of an image; None if it is a crop without detection."""
        if image.faces is not None:
            return locate_faces(picture, image.faces, self.detector)
        return None if self.detector is None else self.detector.detect(picture)

    def _pixels(self, picture: Image.Image) -> NDArray[np.uint8]:
        return eval_transform(picture, self.image_size, self.grayscale)
