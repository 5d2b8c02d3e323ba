// The worker: from the bytes of a picture to its predictions, as predict.py makes them.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { alignCrop, isAlignedCrop } from "./alignment.js";
import { answerFace } from "./answer.js";
import { decode } from "./decode.js";
import { FaceDetector } from "./detector.js";
import { evalTransform } from "./resize.js";
import { YuNet } from "./yunet.js";

const NO_FACE = "no face found";
const BATCH = 16; // faces per run of the network

ort.env.wasm.numThreads = 1; // more need the headers of a cross-origin isolated page
const loading = load();
loading.catch(() => {}); // reported with the first picture

self.addEventListener("message", async ({ data }) => {
  try {
    self.postMessage({ answer: await predict(data.file, data.detect) });
  } catch (error) {
    self.postMessage({ error: error.message });
  }
});

async function load() {
  const address = (name) => new URL(name, import.meta.url).href;
  const read = async (name) => {
    const response = await fetch(address(name));
    if (!response.ok) throw new Error(`${name} can't be loaded: ${response.status} ${response.statusText}`);
    return response;
  };
  const open = async (name) => ort.InferenceSession.create(await (await read(name)).arrayBuffer());
  const model = await (await read("model.json")).json();
  const detector = new FaceDetector(new YuNet(await open("face_detector.onnx"), ort.Tensor));
  return { model, detector, network: await open("model.onnx") };
}

async function predict(file, requested) {
  const { model, detector, network } = await loading;
  const picture = await decode(file, model.max_megapixels);
  const { width, height } = picture;
  const { faces, crops } = await findFaces(picture, requested ?? model.detect, model, detector);
  if (faces.length === 0) return { width, height, faces: [], error: NO_FACE };
  const answers = [];
  for (let start = 0; start < crops.length; start += BATCH) {
    const columns = await run(network, crops.slice(start, start + BATCH), model);
    columns.forEach((row, i) => answers.push(answerFace(start + i + 1, faces[start + i], row, model.tasks)));
  }
  return { width, height, faces: answers, error: null };
}

/** Returns the faces, null for one without detection, and the input of the network for each. */
async function findFaces(picture, detect, model, detector) {
  const pixels = (image) => evalTransform(image, model.image_size, model.channels === 1);
  if (detect === "never") return { faces: [null], crops: [pixels(picture)] };
  const faces = await detector.detect(picture);
  if (detect === "auto" && faces.length && isAlignedCrop(faces[0].landmarks, picture.width, picture.height)) {
    return { faces: faces.slice(0, 1), crops: [pixels(picture)] };
  }
  return { faces, crops: faces.map((face) => pixels(alignCrop(picture, face.landmarks, model.image_size))) };
}

/** Returns the network's columns for each crop, by name. */
async function run(network, crops, { channels, image_size: side, tasks }) {
  const pixels = new Uint8Array(crops.length * channels * side * side);
  crops.forEach((crop, i) => pixels.set(crop, i * crop.length));
  const given = new ort.Tensor("uint8", pixels, [crops.length, channels, side, side]);
  const outputs = await network.run({ pixels: given });
  const names = tasks.flatMap((task) => task.columns);
  return crops.map((_, i) => Object.fromEntries(names.map((name) => [name, outputs[name].data[i]])));
}
