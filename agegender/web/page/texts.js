// Texts on predictions and tasks.

/** Returns a text for each task, such as `34 (27-43)` and `female 97 %`; with the task's name if `info.names` is set. */
export function predictionTexts(info, face) {
  return info.tasks.map((task) => (info.names ? `${task.name}: ` : "") + text(task, face));
}

function text(task, face) {
  if (task.kind === "number") {
    const within = intervalText(task, face, "-");
    return numberText(task, face, 0) + (within && ` (${within})`);
  }
  return face[task.name] === "unsure" ? "unsure" : `${face[task.name]} ${probabilityText(task, face)}`;
}

/** Returns the answer for a face as a sentence in plain words, with what an interval and "unsure" mean. */
export function explanation(info, face) {
  const words = info.tasks.map((task) => explained(task, face)).join("; ");
  return `Face ${face.face}: ${words}.`.replaceAll(" %", "\u00a0%"); // no line break before the sign
}

function explained(task, face) {
  if (task.kind === "number") {
    const [low, high] = ends(task, face);
    const about = `${task.name} about ${numberText(task, face, 0)} ${task.unit}`.trim();
    return low === null ? about : `${about}, between ${low} and ${high} with 80 % probability`;
  }
  const likely = probabilityText(task, face);
  if (face[task.name] !== "unsure") return `${task.name} ${face[task.name]} with ${likely} probability`;
  const none = task.kind === "binary" ? "neither label" : "no label";
  return `${task.name} unsure, as ${none} has a probability of at least ${percentage(task.min_confidence)} (min_confidence)`;
}

function ends(task, face) {
  return task.columns.slice(2, 4).map((column) => face[column]?.toFixed(task.digits[3] ?? 0) ?? null);
}

/** Returns a number with the decimals of its interval, and at least `decimals`. */
export function numberText(task, face, decimals) {
  const value = face[task.columns[0]];
  return value === null ? "unknown" : value.toFixed(Math.max(decimals, task.digits[3] ?? 0));
}

/** Returns the interval of a number as text; empty if there is none. */
export function intervalText(task, face, dash) {
  const [low, high] = task.columns.slice(2).map((column) => face[column]);
  if (low === null || high === null) return "";
  const decimals = task.digits[3] ?? 0;
  return `${low.toFixed(decimals)}${low < 0 ? " to " : dash}${high.toFixed(decimals)}`;
}

/** Returns the probability of the likeliest class as text. */
export function probabilityText(task, face) {
  const given = task.columns.map((column) => face[column]);
  return percentage(Math.max(...given, ...(task.kind === "binary" ? [1 - given[0]] : [])));
}

/** Returns a fraction as text; `–` for null. */
export function percentage(value) {
  return value === null ? "–" : `${(100 * value).toFixed(0)} %`;
}

/** Joins texts: `a`, `a, and b`. */
export function joined(texts) {
  return texts.length < 2 ? texts.join() : `${texts.slice(0, -1).join(", ")}, and ${texts.at(-1)}`;
}
