// Reads images from files, the camera, drag and drop or the clipboard, and shows the backend's predictions.

import { save, toCsv } from "./answers.js";
import * as backend from "./backend.js";
import { startCamera } from "./camera.js";
import { draw } from "./draw.js";
import { showInfo } from "./info.js";
import { explanation, intervalText, numberText, predictionTexts, probabilityText } from "./texts.js";

const NO_FACE = "no face found"; // an answer, not a failure

const the = (id) => document.getElementById(id);
let info = null; // the backend's information
let loading = null; // its request
let results = []; // name, file, and answer or error of each picture that was given, in order
let selected = null; // the one of them that was chosen last
let shown = null; // the displayed image and predictions
let pending = null; // aborts the pending request

function setStatus(text, busy = false) {
  the("status").textContent = text;
  document.body.classList.toggle("busy", busy);
  the("answer").setAttribute("aria-busy", String(busy));
}

function fail(text) {
  setStatus("");
  the("error").textContent = text;
}

function clear() {
  if (shown) URL.revokeObjectURL(shown.address);
  shown = null;
  the("answer").hidden = the("marked").hidden = true;
  the("error").textContent = "";
}

/** Decodes an image; null if the browser can't, or doesn't rotate it upright as the backend does (some WebP). */
async function decode(address, { width, height }) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
    return image.naturalWidth === width && image.naturalHeight === height ? image : null;
  } catch {
    return null;
  }
}

/**
 * Gets the predictions of pictures one after another, and shows the first; earlier pictures are dropped.
 *
 * @param pictures For each its `file`, its `name`, and optionally `detect`, see `predict` of the backend.
 */
async function handle(pictures) {
  pending?.abort();
  const request = (pending = new AbortController());
  the("error").textContent = "";
  const given = pictures.map((picture) => ({ ...picture, answer: null, error: null }));
  for (const [i, result] of given.entries()) {
    setStatus(`Processing ${result.name}${given.length > 1 ? ` (${i + 1} of ${given.length})` : ""} …`, true);
    try {
      result.answer = await answerOf(result, request.signal);
      await loadInfo();
    } catch (error) {
      Object.assign(result, { answer: null, error: error.message });
    }
    if (request !== pending) return; // superseded by later pictures
    results = given.slice(0, i + 1);
    list(given.length);
    if (i === 0) await select(result);
    if (request !== pending) return;
  }
  the("csv").hidden = !given.some((result) => result.answer);
  if (given.length > 1) setStatus(summary(given));
}

function answerOf({ file, detect = null }, signal) {
  if (info?.max_upload_mb && file.size > 1e6 * info.max_upload_mb) {
    throw new Error(`too large: the limit is ${info.max_upload_mb} MB`);
  }
  return backend.predict(file, detect, signal);
}

function summary(given) {
  const faces = given.filter((result) => result.answer?.faces.length).length;
  const failed = given.filter((result) => result.error).length;
  return `${given.length} pictures: ${faces} with faces, ${given.length - faces - failed} without, ${failed} that failed`;
}

/** Lists the pictures with their answers, if several are given. */
function list(count) {
  the("several").hidden = count < 2;
  the("csv").hidden = true; // until all are answered
  const items = results.map((result) => {
    const button = document.createElement("button");
    const words = document.createElement("span");
    button.type = "button";
    button.setAttribute("aria-current", String(result === shown?.result));
    words.textContent = result.error ?? wordsOf(result.answer);
    button.append(result.name, words);
    button.addEventListener("click", () => select(result));
    return document.createElement("li").appendChild(button).parentElement;
  });
  the("pictures").replaceChildren(...items);
}

function wordsOf(answer) {
  return answer.faces.map((face) => predictionTexts(info, face).join(", ")).join("; ") || "no face";
}

/** Shows a picture with its answer, or its error. */
async function select(result) {
  const { file, answer, name, error } = (selected = result);
  const address = URL.createObjectURL(file);
  const image = answer && (await decode(address, answer));
  if (selected !== result || !results.includes(result)) {
    URL.revokeObjectURL(address);
    return;
  }
  clear();
  shown = { image, answer, address, result };
  [...the("pictures").querySelectorAll("button")].forEach((button, i) => {
    button.setAttribute("aria-current", String(results[i] === result));
  });
  if (answer) show(name);
  else fail(`${name}: ${error}`);
}

function show(name) {
  const { image, answer } = shown;
  shown.texts = answer.faces.map((face) => predictionTexts(info, face));
  const words = shown.texts.map((lines) => lines.join(", "));
  the("name").textContent = name;
  the("answer").hidden = false;
  the("undrawn").hidden = image !== null;
  the("frame").hidden = image === null;
  the("marked").hidden = image === null || answer.faces.length === 0;
  the("picture").setAttribute("aria-label", `${name}: ${words.join("; ") || NO_FACE}`);
  const rows = answer.faces.map(rowOf);
  the("faces").tBodies[0].replaceChildren(...rows);
  the("faces").hidden = rows.length === 0;
  the("words").replaceChildren(...answer.faces.map((face) => {
    const item = document.createElement("li");
    item.textContent = explanation(info, face);
    return item;
  }));
  paint();
  if (rows.length) setStatus(`${rows.length === 1 ? "One face" : `${rows.length} faces`}: ${words.join("; ")}`);
  else if (answer.error === NO_FACE) setStatus("No face was found in this picture.");
  else fail(`${name}: ${answer.error}`);
}

function rowOf(face) {
  const row = document.createElement("tr");
  row.insertCell().textContent = face.face;
  for (const task of info.tasks) {
    const cells = [row.insertCell(), row.insertCell()];
    const texts = task.kind === "number" ? [numberText(task, face, 1), intervalText(task, face, "–")] : classTexts(task, face);
    cells.forEach((cell, i) => (cell.textContent = texts[i] || "–"));
    if (task.kind !== "number") cells[0].className = "word";
  }
  row.insertCell().textContent = face.score === null ? "–" : face.score.toFixed(2);
  return row;
}

function classTexts(task, face) {
  const name = face[task.name];
  return [name, name === "unsure" ? "" : probabilityText(task, face)]; // beside "unsure" it could be mistaken for the probability of "unsure"
}

function room() {
  return { width: the("frame").clientWidth, height: Math.max(320, 0.8 * window.innerHeight) };
}

function paint() {
  if (shown?.image) draw(the("picture"), shown.image, shown.answer, shown.texts, room());
}

/** Saves the shown picture with its boxes and labels, as large as it is. */
function saveMarked() {
  const canvas = document.createElement("canvas");
  draw(canvas, shown.image, shown.answer, shown.texts, room(), null);
  const name = `${the("name").textContent.replace(/\.[^.]*$/, "")}_marked.jpg`;
  canvas.toBlob((file) => save(file, name), "image/jpeg", 0.92);
}

function take(files, source) {
  const images = [...files].filter((one) => one.type.startsWith("image/"));
  const taken = images.length ? images : [...files].slice(0, 1);
  if (taken.length) handle(taken.map((file) => ({ file, name: file.name || source })));
  return taken.length > 0;
}

function listen() {
  the("file").addEventListener("change", () => {
    take(the("file").files, "picture");
    the("file").value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    the("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) the("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    the("drop").classList.remove("over");
    if (!take(event.dataTransfer?.files ?? [], "dropped picture")) fail("the dropped item is not a file");
  });
  document.addEventListener("paste", (event) => {
    if (!take(event.clipboardData?.files ?? [], "pasted picture")) fail("the clipboard contains no picture");
  });
  new ResizeObserver(paint).observe(the("frame"));
  startCamera(the, (file) => handle([{ file, name: "camera picture" }]), fail);
  the("csv").addEventListener("click", () => save(new Blob([toCsv(results)], { type: "text/csv" }), "answers.csv"));
  the("marked").addEventListener("click", saveMarked);
}

async function trySample(sample, name) {
  try {
    handle([{ file: await (await fetch(sample.address)).blob(), name, detect: sample.detect }]);
  } catch {
    fail(`${name}: it can't be loaded`);
  }
}

/** Loads the backend's information; once, unless that fails. */
function loadInfo() {
  loading ??= (async () => {
    info = await backend.loadInfo();
    showInfo(the, info, trySample);
  })().catch((error) => {
    loading = null;
    throw error;
  });
  return loading;
}

the("unstarted").remove();
the("privacy").textContent = backend.PRIVACY;
the("curl").textContent = backend.scriptCommand() ?? "";
the("script").hidden = backend.scriptCommand() === null;
listen();
loadInfo().catch((error) => fail(error.message));
