// Reads an image from a file, the camera, drag and drop or the clipboard, and shows the backend's predictions.

import * as backend from "./backend.js";
import { startCamera } from "./camera.js";
import { draw } from "./draw.js";
import { showInfo } from "./info.js";
import { intervalText, numberText, predictionTexts, probabilityText } from "./texts.js";

const the = (id) => document.getElementById(id);
let info = null; // the backend's information
let loading = null; // its request
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
  the("answer").hidden = true;
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

async function handle(file, name, detect = null) {
  pending?.abort();
  const request = (pending = new AbortController());
  the("error").textContent = "";
  if (info?.max_upload_mb && file.size > 1e6 * info.max_upload_mb) {
    clear();
    fail(`${name}: too large: the limit is ${info.max_upload_mb} MB`);
    return;
  }
  setStatus(`Processing ${name} …`, true);
  try {
    const answer = await backend.predict(file, detect, request.signal);
    const address = URL.createObjectURL(file);
    const image = await decode(address, answer);
    await loadInfo();
    if (request !== pending) {
      URL.revokeObjectURL(address);
      return;
    }
    clear();
    shown = { image, answer, address };
    show(name);
  } catch (error) {
    if (request !== pending) return; // superseded by a later image
    clear();
    fail(`${name}: ${error.message}`);
  }
}

function show(name) {
  const { image, answer } = shown;
  shown.texts = answer.faces.map((face) => predictionTexts(info, face));
  const words = shown.texts.map((lines) => lines.join(", "));
  the("name").textContent = name;
  the("answer").hidden = false;
  the("undrawn").hidden = image !== null;
  the("frame").hidden = image === null;
  the("picture").setAttribute("aria-label", `${name}: ${words.join("; ") || "no face found"}`);
  const rows = answer.faces.map(rowOf);
  the("faces").tBodies[0].replaceChildren(...rows);
  the("faces").hidden = rows.length === 0;
  paint();
  if (answer.error) fail(`${name}: ${answer.error}`);
  else setStatus(`${rows.length === 1 ? "One face" : `${rows.length} faces`}: ${words.join("; ")}`);
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

function paint() {
  if (!shown?.image) return;
  const room = { width: the("frame").clientWidth, height: Math.max(320, 0.8 * window.innerHeight) };
  draw(the("picture"), shown.image, shown.answer, shown.texts, room);
}

function take(files, source) {
  const file = [...files].find((one) => one.type.startsWith("image/")) ?? files[0];
  if (file) handle(file, file.name || source);
  return Boolean(file);
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
  startCamera(the, (file) => handle(file, "camera picture"), fail);
}

async function trySample(sample, name) {
  try {
    handle(await (await fetch(sample.address)).blob(), name, sample.detect);
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
