// Resizing: OpenCV's area averages for the detector, and Pillow's antialiased bilinear filter for the network.

/** Creates an image `{ width, height, data }` with four bytes per pixel. */
export function createImage(width, height) {
  return { width, height, data: new Uint8ClampedArray(4 * width * height) };
}

/** Rounds to an integer, halves to the even one, as Python and OpenCV do. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Returns the image at half its size, as `cv2.resize` does with `INTER_AREA` and factors of 0.5. */
export function halve(image) {
  return average(image, roundHalfEven(image.width / 2), roundHalfEven(image.height / 2), 2, 2);
}

/** Returns a smaller image, as `cv2.resize` does with `INTER_AREA`. */
export function shrink(image, width, height) {
  return average(image, width, height, image.width / width, image.height / height);
}

/**
 * Averages the area of the source that each pixel covers; `across` and `down` are its sides.
 *
 * Every step is rounded to 32-bit floats as in OpenCV: one pixel that differs by 1 moves landmarks by 0.01 pixels.
 */
function average(image, width, height, across, down) {
  const made = createImage(width, height);
  const columns = areas(image.width, width, across);
  const rows = areas(image.height, height, down);
  const round = across === 2 && down === 2 ? (value) => Math.floor(value + 0.5) : roundHalfEven;
  const row = new Float32Array(3 * width);
  const sum = new Float32Array(3 * width);
  for (let y = 0; y < height; y++) {
    sum.fill(0);
    rows[y].weights.forEach((share, i) => {
      averageRow(image, rows[y].first + i, columns, row);
      for (let x = 0; x < sum.length; x++) sum[x] += Math.fround(share * row[x]);
    });
    for (let x = 0; x < width; x++) {
      for (let color = 0; color < 3; color++) made.data[4 * (y * width + x) + color] = round(sum[3 * x + color]);
    }
  }
  return made;
}

function averageRow({ width, data }, y, columns, row) {
  for (let x = 0; x < columns.length; x++) {
    const { first, weights } = columns[x];
    let [red, green, blue] = [0, 0, 0];
    for (let i = 0, at = 4 * (y * width + first); i < weights.length; i++, at += 4) {
      red = Math.fround(red + Math.fround(weights[i] * data[at]));
      green = Math.fround(green + Math.fround(weights[i] * data[at + 1]));
      blue = Math.fround(blue + Math.fround(weights[i] * data[at + 2]));
    }
    row[3 * x] = red;
    row[3 * x + 1] = green;
    row[3 * x + 2] = blue;
  }
}

/** Returns for each target pixel the first source pixel under it, and the fractions of its area on the sources. */
function areas(from, to, scale) {
  return Array.from({ length: to }, (_, place) => {
    const start = place * scale;
    const end = Math.min(start + scale, from);
    let first = Math.floor(start);
    if (first + 1 - start <= 1e-3) first += 1; // slivers that OpenCV leaves out
    const last = end - Math.floor(end) > 1e-3 ? Math.floor(end) : Math.floor(end) - 1;
    const weights = Array.from({ length: last - first + 1 }, (_, i) => {
      return Math.fround((Math.min(end, first + i + 1) - Math.max(start, first + i)) / (end - start));
    });
    return { first, weights };
  });
}

/**
 * Returns the network's input, as `eval_transform` of agegender/data/decode.py does: the centered square, resized.
 *
 * @param image The image.
 * @param size Side of the result in pixels.
 * @param gray Whether the result has one channel instead of three.
 * @returns Uint8Array of shape [channels, size, size].
 */
export function evalTransform(image, size, gray) {
  const side = Math.min(image.width, image.height);
  const left = Math.floor((image.width - side) / 2);
  const top = Math.floor((image.height - side) / 2);
  const filter = bilinearFilter(side, size);
  const channels = gray ? 1 : 3;
  const made = new Uint8Array(channels * size * size);
  for (let channel = 0; channel < channels; channel++) {
    const plane = gray ? luma(image, left, top, side) : color(image, left, top, side, channel);
    made.set(resample(resample(plane, side, filter), side, filter), channel * size * size);
  }
  return made;
}

function color({ width, data }, left, top, side, channel) {
  const plane = new Uint8Array(side * side);
  for (let y = 0, i = 0; y < side; y++) {
    for (let at = 4 * ((top + y) * width + left) + channel, x = 0; x < side; x++, at += 4) plane[i++] = data[at];
  }
  return plane;
}

/** ITU-R 601-2 luma, with Pillow's integers. */
function luma(image, left, top, side) {
  const [red, green, blue] = [0, 1, 2].map((channel) => color(image, left, top, side, channel));
  return red.map((value, i) => (19595 * value + 38470 * green[i] + 7471 * blue[i] + 0x8000) >> 16);
}

/** Returns for each target pixel its first source pixel, and the weights as integers of 22 bits: Pillow's filter. */
function bilinearFilter(from, to) {
  const scale = from / to;
  const support = Math.max(1, scale);
  return Array.from({ length: to }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(from, Math.trunc(center + support + 0.5));
    const weights = Array.from({ length: end - first }, (_, i) => {
      return Math.max(0, 1 - Math.abs((first + i - center + 0.5) / support));
    });
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** 22)) };
  });
}

/** Resamples the rows of a plane of bytes, and returns it transposed: twice resamples both directions. */
function resample(plane, width, filter) {
  const height = plane.length / width;
  const made = new Uint8ClampedArray(filter.length * height);
  filter.forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      let sum = 2 ** 21;
      for (let i = 0, at = y * width + first; i < weights.length; i++) sum += weights[i] * plane[at + i];
      made[x * height + y] = sum >> 22;
    }
  });
  return made;
}
