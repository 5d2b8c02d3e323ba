// Affine warps of an image; beyond its border the edge pixels are repeated.

import { createImage } from "./resize.js";

/**
 * Returns a square patch, as `cv2.warpAffine` does with `INTER_LINEAR`: positions are rounded to 1/32 pixel.
 *
 * @param image The image.
 * @param matrix `[[a, b, c], [d, e, f]]`: maps positions in the patch to positions in the image.
 * @param side Side of the patch in pixels.
 */
export function warpPatch(image, [[a, b, c], [d, e, f]], side) {
  const fixed = (value) => Math.round(1024 * value);
  const patch = createImage(side, side);
  for (let y = 0, at = 0; y < side; y++) {
    const [x0, y0] = [fixed(b * y + c) + 16, fixed(e * y + f) + 16];
    for (let x = 0; x < side; x++, at += 4) {
      const [px, py] = [(x0 + fixed(a * x)) >> 5, (y0 + fixed(d * x)) >> 5];
      mix(image, px >> 5, py >> 5, (px & 31) / 32, (py & 31) / 32, 0.5, patch.data, at);
    }
  }
  return patch;
}

/**
 * Returns a square crop, as Pillow's `Image.transform` does with `AFFINE` and `BILINEAR`.
 *
 * @param image The image.
 * @param matrix `[[a, b, c], [d, e, f]]`: maps positions in the crop to positions in the image.
 * @param side Side of the crop in pixels.
 */
export function warpCrop(image, [[a, b, c], [d, e, f]], side) {
  const crop = createImage(side, side);
  for (let y = 0, at = 0; y < side; y++) {
    for (let x = 0; x < side; x++, at += 4) {
      const px = a * (x + 0.5) + b * (y + 0.5) + c - 0.5; // Pillow's positions are those of pixel centers
      const py = d * (x + 0.5) + e * (y + 0.5) + f - 0.5;
      const [left, top] = [Math.floor(px), Math.floor(py)];
      mix(image, left, top, px - left, py - top, 0, crop.data, at);
    }
  }
  return crop;
}

/** Writes the bilinear mean of four neighbors, plus `rounding` and rounded down, into a pixel. */
function mix({ width, height, data }, left, top, right, down, rounding, into, at) {
  const x0 = 4 * Math.max(0, Math.min(left, width - 1));
  const x1 = 4 * Math.max(0, Math.min(left + 1, width - 1));
  const y0 = 4 * width * Math.max(0, Math.min(top, height - 1));
  const y1 = 4 * width * Math.max(0, Math.min(top + 1, height - 1));
  for (let color = 0; color < 3; color++) {
    const above = data[y0 + x0 + color] + (data[y0 + x1 + color] - data[y0 + x0 + color]) * right;
    const below = data[y1 + x0 + color] + (data[y1 + x1 + color] - data[y1 + x0 + color]) * right;
    into[at + color] = Math.floor(above + (below - above) * down + rounding);
  }
}
