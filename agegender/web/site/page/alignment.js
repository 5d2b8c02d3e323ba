// Face alignment to UTKFace's crop: the functions and constants of agegender/prediction/faces/alignment.py.

import { warpCrop } from "./warp.js";

/** Positions of eyes, nose tip and mouth corners in a crop, as fractions of its side. */
export const TEMPLATE = [[0.2967, 0.2822], [0.6886, 0.2826], [0.4911, 0.5153], [0.3239, 0.6774], [0.6583, 0.6782]];
const TOLERANCE = 0.08; // root mean square distance from the template of a crop, as a fraction of the side
const LARGEST_WARP = 4096; // pixels a side

/** Returns the mean of points. */
export function center(points) {
  return [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
}

/** Returns the least-squares similarity transform `[[a, b, c], [d, e, f]]` between point sets (Umeyama 1991). */
export function estimateSimilarity(points, onto) {
  const [from, to] = [center(points), center(onto)];
  let [size, along, across] = [0, 0, 0];
  points.forEach((point, i) => {
    const [x, y] = [point[0] - from[0], point[1] - from[1]];
    const [u, v] = [onto[i][0] - to[0], onto[i][1] - to[1]];
    size += x * x + y * y;
    along += x * u + y * v;
    across += x * v - y * u;
  });
  const [cos, sin] = [along / size, across / size];
  return [
    [cos, -sin, to[0] - (cos * from[0] - sin * from[1])],
    [sin, cos, to[1] - (sin * from[0] + cos * from[1])],
  ];
}

/** Returns whether an image already is a face crop aligned like UTKFace's. */
export function isAlignedCrop(landmarks, width, height) {
  if (Math.abs(width - height) > 0.05 * Math.max(width, height)) return false;
  const squares = landmarks.map(([x, y], i) => (x / width - TEMPLATE[i][0]) ** 2 + (y / height - TEMPLATE[i][1]) ** 2);
  return Math.sqrt(squares.reduce((a, b) => a + b) / squares.length) <= TOLERANCE;
}

/** Crops a face, upright and aligned to the template; the side of the crop is a multiple of `size`. */
export function alignCrop(image, landmarks, size) {
  const [[a, b, c], [d, e, f]] = estimateSimilarity(TEMPLATE, landmarks);
  const density = Math.hypot(a, d) / size - 1e-6;
  const side = size * Math.max(1, Math.min(Math.ceil(density), Math.floor(LARGEST_WARP / size)));
  return warpCrop(image, [[a / side, b / side, c], [d / side, e / side, f]], side);
}
