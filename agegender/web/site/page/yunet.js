// YuNet: one pass of the face detector, with the pre- and post-processing of OpenCV's FaceDetectorYN.

const STRIDES = [8, 16, 32]; // of the grids of cells, each cell with one candidate
const OVERLAP = 0.3; // intersection over union above which the lower score is dropped
const LEAST_SEEN = 64; // pixels a side that images are padded to

export class YuNet {
  /**
   * @param session The network as a session of ONNX Runtime, for any image size.
   * @param Tensor ONNX Runtime's class of tensors.
   */
  constructor(session, Tensor) {
    this.session = session;
    this.Tensor = Tensor;
  }

  /** Returns faces by descending score: `{ x, y, width, height, landmarks, score }` in pixels; x, y is top left. */
  async detect(image, threshold) {
    const [width, height] = [image.width, image.height].map((side) => 32 * Math.ceil(Math.max(LEAST_SEEN, side) / 32));
    const input = new this.Tensor("float32", planes(image, width, height), [1, 3, height, width]);
    const outputs = await this.session.run({ input });
    const found = STRIDES.flatMap((stride) => candidates(outputs, stride, width / stride, threshold));
    return suppressOverlaps(found);
  }
}

/** Returns blue, green and red as planes of floats, padded with zeros below and on the right. */
function planes(image, width, height) {
  const made = new Float32Array(3 * width * height);
  for (let y = 0, from = 0; y < image.height; y++) {
    for (let x = 0, to = y * width; x < image.width; x++, from += 4, to++) {
      made[to] = image.data[from + 2];
      made[to + width * height] = image.data[from + 1];
      made[to + 2 * width * height] = image.data[from];
    }
  }
  return made;
}

/**
 * Decodes the cells of a grid, in 32-bit floats as OpenCV does: the second pass of the detector amplifies a difference
 * of 0.00001 pixels in a turned face to 0.1 and more.
 */
function candidates(outputs, stride, columns, threshold) {
  const f = Math.fround;
  const output = (kind) => outputs[`${kind}_${stride}`].data;
  const [faces, objects, boxes, points] = [output("cls"), output("obj"), output("bbox"), output("kps")];
  const found = [];
  for (let cell = 0; cell < faces.length; cell++) {
    const score = f(Math.sqrt(f(unit(faces[cell]) * unit(objects[cell]))));
    if (score <= threshold) continue;
    const [column, row] = [cell % columns, Math.floor(cell / columns)];
    const [width, height] = [2, 3].map((i) => f(f(Math.exp(boxes[4 * cell + i])) * stride));
    found.push({
      score,
      x: f(f(f(column + boxes[4 * cell]) * stride) - width / 2),
      y: f(f(f(row + boxes[4 * cell + 1]) * stride) - height / 2),
      width,
      height,
      landmarks: Array.from({ length: 5 }, (_, i) => [
        f(f(points[10 * cell + 2 * i] + column) * stride),
        f(f(points[10 * cell + 2 * i + 1] + row) * stride),
      ]),
    });
  }
  return found;
}

function unit(value) {
  return Math.min(1, Math.max(0, value));
}

/** Greedy non-maximum suppression, on whole pixels as in OpenCV. */
function suppressOverlaps(found) {
  const kept = [];
  for (const face of found.sort((one, other) => other.score - one.score)) {
    if (kept.every((other) => overlap(whole(face), whole(other)) <= OVERLAP)) kept.push(face);
  }
  return kept;
}

function whole(face) {
  return [face.x, face.y, face.width, face.height].map(Math.trunc);
}

function overlap([x, y, width, height], [x2, y2, width2, height2]) {
  const across = Math.max(0, Math.min(x + width, x2 + width2) - Math.max(x, x2));
  const down = Math.max(0, Math.min(y + height, y2 + height2) - Math.max(y, y2));
  const union = width * height + width2 * height2 - across * down;
  return union > 0 ? (across * down) / union : 1;
}
