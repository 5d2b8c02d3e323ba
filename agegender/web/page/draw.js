// Drawing of an image with face boxes and labels; labels are legible at any size, inside the canvas, and don't overlap.

const INK = "#ffffff";
const PAPER = "#143c8c";
const LINE = 1.25; // line height, in font sizes
const MIN_SIDE = 360; // pixels of the shorter side that legible labels need; smaller images are enlarged
const MIN_HEIGHT = 200; // pixels: images displayed lower than this get a margin, as labels would hide the faces

/**
 * Draws an image with the boxes and labels of its faces.
 *
 * @param canvas The canvas to draw on, which is resized.
 * @param image The decoded image, upright.
 * @param answer The backend's predictions; boxes are in pixels of the upright image.
 * @param texts For each face the lines of its label.
 * @param room Available width and height in CSS pixels.
 * @param dense Pixels of the canvas per CSS pixel; null for those of the image, if it is larger than the room.
 */
export function draw(canvas, image, answer, texts, room, dense = window.devicePixelRatio || 1) {
  const fits = Math.min(room.width / answer.width, room.height / answer.height);
  const scale = Math.min(fits, Math.max(1, MIN_SIDE / Math.min(answer.width, answer.height)));
  const width = Math.max(1, Math.round(answer.width * scale));
  const height = Math.max(1, Math.round(answer.height * scale));
  const letters = Math.min(18, Math.max(12, Math.min(width, height) / 26));
  const lines = Math.max(0, ...texts.map((each) => each.length));
  const high = height + (height < MIN_HEIGHT && lines ? Math.ceil(labelHeight(lines, letters)) : 0);
  dense ??= Math.max(1, answer.width / width);
  canvas.width = Math.max(1, Math.round(width * dense));
  canvas.height = Math.max(1, Math.round(high * dense));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${high}px`;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, width, height);

  const labels = [];
  pen.font = `600 ${letters}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  pen.lineWidth = Math.max(2, letters / 6);
  pen.strokeStyle = PAPER;
  const boxes = answer.faces.map((face) => boxOf(face, scale, width));
  boxes.forEach((box, i) => {
    if (answer.faces[i].left !== null) frame(pen, box);
  });
  answer.faces.forEach((face, i) => {
    const [first, ...rest] = texts[i];
    const shown = [answer.faces.length > 1 ? `${face.face}: ${first}` : first, ...rest];
    labels.push(label(pen, shown, letters, boxes[i], { width, height: high }, labels));
  });
}

function boxOf(face, scale, width) {
  if (face.left === null) return { left: 0, top: 0, right: width, bottom: 0 };
  return { left: face.left * scale, top: face.top * scale, right: face.right * scale, bottom: face.bottom * scale };
}

function frame(pen, box) {
  const sides = [box.left, box.top, box.right - box.left, box.bottom - box.top];
  pen.save();
  pen.strokeStyle = INK; // an outline, visible where the image is as dark as the box
  pen.lineWidth += 2;
  pen.strokeRect(...sides);
  pen.restore();
  pen.strokeRect(...sides);
}

function labelHeight(lines, letters) {
  return lines * LINE * letters + letters / 2;
}

/** Draws a label below, above, beside or inside the box: the first place that overlaps no other label. */
function label(pen, lines, letters, box, size, labels) {
  const pad = letters / 3;
  const width = Math.max(...lines.map((text) => pen.measureText(text).width)) + 2 * pad;
  const height = labelHeight(lines.length, letters);
  const spots = [
    [box.left, box.bottom], [box.left, box.top - height], [box.right, box.top], [box.left - width, box.top],
    ...Array.from({ length: 8 }, (_, row) => [box.left, box.top + row * height]),
  ];
  const places = spots.map(([x, y]) => {
    const left = Math.max(0, Math.min(x, size.width - width));
    const top = Math.max(0, Math.min(y, size.height - height));
    return { left, top, right: left + width, bottom: top + height };
  });
  const place = places.find((one) => !labels.some((other) => overlap(one, other))) ?? places[0];
  pen.fillStyle = PAPER;
  pen.fillRect(place.left, place.top, width, height);
  pen.fillStyle = INK;
  lines.forEach((text, i) => pen.fillText(text, place.left + pad, place.top + pad + i * LINE * letters));
  return place;
}

function overlap(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}
