// Face detection in two passes: the class FaceDetector and the constants of agegender/prediction/faces/detector.py.

import { center, estimateSimilarity, TEMPLATE } from "./alignment.js";
import { createImage, halve, roundHalfEven, shrink } from "./resize.js";
import { warpPatch } from "./warp.js";

const CANDIDATE_SCORE = 0.5;
const MIN_SCORE = 0.75;
const TURNED_DISTANCE = 0.6;
const PATCH_SCORE = 0.3;
const MAX_OFFSET = 1 / 3;
const UPRIGHT = 0.93;
const LEVEL = 10; // degrees
const TURNS = Array.from({ length: 12 }, (_, i) => 30 * i - 150);
const RECENTERED = 2;
const LOOKED_AT = [2048, 1024, 256]; // pixels of the longer side in the first passes
const ENOUGH = 1024;
const LEAST_SIDE = 16;
const LARGE = [200, 320]; // pixels: side of a face, and of the patch around it
const SMALL = [60, 160];
const OTHER_SIDE = [1, 0, 2, 4, 3];
const SECONDS = 20; // time limit of an image

export class FaceDetector {
  /** @param yunet The detector of the passes, see yunet.js. */
  constructor(yunet) {
    this.yunet = yunet;
  }

  /** Returns the faces in an image, the largest first: `{ box: [left, top, right, bottom], score, landmarks }`. */
  async detect(image) {
    const until = performance.now() + 1000 * SECONDS;
    const pyramid = [image];
    const looks = firstLooks(image);
    for (let quarter = 0; quarter < 4; quarter++) {
      const faces = await this.ofPlaces(pyramid, await this.candidates(image, looks, quarter), until);
      if (faces.length) return faces.sort((one, other) => size(other.box) - size(one.box));
    }
    return [];
  }

  async ofPlaces(pyramid, places, until) {
    const faces = [];
    for (const place of places) {
      if (performance.now() > until) throw new Error(`face detection failed: longer than ${SECONDS} seconds`);
      if (faces.some((known) => isAt(known, place))) continue;
      const face = await this.refine(pyramid, place);
      if (face && !faces.some((known) => isSame(face, known))) faces.push(face);
    }
    return faces;
  }

  /** Returns candidates by descending score, detected in the image rotated left by quarter turns. */
  async candidates(image, looks, quarter) {
    const found = [];
    for (const { scale, small } of looks) {
      for (const row of await this.yunet.detect(rotateLeft(small, quarter), CANDIDATE_SCORE)) {
        let [width, height] = [row.width / scale, row.height / scale];
        let [x, y] = [row.x / scale + width / 2, row.y / scale + height / 2];
        let end = quarter % 2 === 0 ? [image.height, image.width] : [image.width, image.height];
        for (let i = 0; i < quarter; i++) {
          [x, y, width, height] = [end[0] - y, x, height, width];
          end = [end[1], end[0]];
        }
        found.push({ score: row.score, place: { x, y, width, height, tilt: 0 } });
      }
    }
    return found.sort((one, other) => other.score - one.score).map(({ place }) => place);
  }

  /** Runs the second pass on a candidate, at several rotations if it isn't upright; null if it is no face. */
  async refine(pyramid, place) {
    let seen = await this.look(pyramid, place);
    let upright = place;
    if (!seen || seen.score < UPRIGHT || Math.abs(tilt(seen.landmarks)) > LEVEL) {
      upright = await this.bestTurn(pyramid, place);
      seen = await this.look(pyramid, upright);
    }
    if (!seen || seen.score < (upright.tilt ? 1 - TURNED_DISTANCE * (1 - MIN_SCORE) : MIN_SCORE)) return null;
    const { score } = seen;
    if (upright.tilt) [upright, seen] = await this.recenter(pyramid, upright, seen);
    let { landmarks } = seen;
    if (distance(center(landmarks), [place.x, place.y]) > MAX_OFFSET * Math.max(place.width, place.height)) return null;
    const mirrored = await this.look(pyramid, upright, LARGE, true);
    if (mirrored) landmarks = landmarks.map((point, i) => center([point, mirrored.landmarks[i]]));
    return { box: boxOf(upright.tilt ? upright : place, pyramid[0]), score: Math.min(score, 1), landmarks };
  }

  async bestTurn(pyramid, place) {
    let [best, highest] = [{ ...place, tilt: TURNS[0] }, 0];
    for (const turn of TURNS) {
      const turned = { ...place, tilt: turn };
      const score = (await this.look(pyramid, turned, SMALL))?.score ?? 0;
      if (score > highest) [best, highest] = [turned, score];
    }
    return best;
  }

  /** Detects a rotated face again in a patch around its upright box. */
  async recenter(pyramid, place, seen) {
    for (let i = 0; i < RECENTERED; i++) {
      const again = await this.look(pyramid, seen.place);
      if (!again) break;
      [place, seen] = [seen.place, again];
    }
    return [place, seen];
  }

  /** Returns the best detection in the upright patch around a candidate: `{ score, landmarks, place }`, or null. */
  async look(pyramid, place, [face, side] = LARGE, mirrored = false) {
    const scale = Math.max(place.width, place.height) / face;
    const turn = (place.tilt * Math.PI) / 180;
    const flip = mirrored ? -1 : 1;
    const [a, b] = [scale * Math.cos(turn) * flip, -scale * Math.sin(turn)];
    const [d, e] = [scale * Math.sin(turn) * flip, scale * Math.cos(turn)];
    const shift = [place.x - (a + b) * (side / 2), place.y - (d + e) * (side / 2)];
    const onto = ([x, y]) => [a * x + b * y + shift[0], d * x + e * y + shift[1]];
    const patch = patchOf(pyramid, [[a, b, shift[0]], [d, e, shift[1]]], side);
    const rows = (await this.yunet.detect(patch, PATCH_SCORE)).filter((row) => {
      const middle = [row.x + row.width / 2, row.y + row.height / 2];
      return Math.max(...middle.map((at) => Math.abs(at - side / 2))) < side / 4;
    });
    if (!rows.length) return null;
    const best = rows[0];
    const landmarks = best.landmarks.map(onto);
    const [x, y] = onto([best.x + best.width / 2, best.y + best.height / 2]);
    const where = { x, y, width: scale * best.width, height: scale * best.height, tilt: place.tilt };
    return { score: best.score, landmarks: mirrored ? OTHER_SIDE.map((i) => landmarks[i]) : landmarks, place: where };
  }
}

/** Returns the image at the sizes of the first passes, each with its scale. */
function firstLooks(image) {
  const longer = Math.max(image.width, image.height);
  const looks = [];
  for (const side of longer > ENOUGH ? LOOKED_AT : [longer]) {
    const scale = Math.min(1, side / longer);
    const [width, height] = [roundHalfEven(image.width * scale), roundHalfEven(image.height * scale)];
    if (Math.min(width, height) < LEAST_SIDE) continue;
    looks.push({ scale, small: scale < 1 ? shrink(image, width, height) : image });
  }
  return looks;
}

/** Warps a patch from the level of the pyramid at which it is shrunk by at most 2; levels are made on first use. */
function patchOf(pyramid, matrix, side) {
  let scale = Math.hypot(matrix[0][0], matrix[1][0]);
  let level = 0;
  for (; scale > 2; scale /= 2, level++) {
    matrix = matrix.map((row) => row.map((value) => value / 2));
    pyramid[level + 1] ??= halve(pyramid[level]);
  }
  return warpPatch(pyramid[level], matrix, side);
}

function rotateLeft(image, quarters) {
  for (let i = 0; i < quarters; i++) {
    const turned = createImage(image.height, image.width);
    const [from, to] = [image, turned].map(({ data }) => new Uint32Array(data.buffer));
    for (let y = 0, at = 0; y < turned.height; y++) {
      for (let x = 0; x < turned.width; x++) to[at++] = from[x * image.width + image.width - 1 - y];
    }
    image = turned;
  }
  return image;
}

/** Returns left, top, right and bottom of the ellipse inscribed in the rotated box, clipped to the image. */
function boxOf({ x, y, width, height, tilt }, image) {
  const [cos, sin] = [Math.cos((tilt * Math.PI) / 180), Math.sin((tilt * Math.PI) / 180)];
  const [across, down] = [Math.hypot(width * cos, height * sin) / 2, Math.hypot(height * cos, width * sin) / 2];
  const clip = (value, end) => Math.min(Math.max(value, 0), end);
  return [
    clip(x - across, image.width), clip(y - down, image.height),
    clip(x + across, image.width), clip(y + down, image.height),
  ];
}

/** Returns the clockwise rotation of a face in degrees. */
function tilt(landmarks) {
  const turn = estimateSimilarity(TEMPLATE, landmarks);
  return (Math.atan2(turn[1][0], turn[0][0]) * 180) / Math.PI;
}

function size([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}

function distance([x, y], [x2, y2]) {
  return Math.hypot(x - x2, y - y2);
}

function isAt(face, { x, y }) {
  return distance(center(face.landmarks), [x, y]) < Math.sqrt(size(face.box)) / 3;
}

function isSame(face, other) {
  const apart = distance(center(face.landmarks), center(other.landmarks));
  return apart < Math.sqrt(Math.max(size(face.box), size(other.box))) / 3;
}
