// The prediction for a face in the form of the API: the columns of agegender/prediction/prediction.py, rounded.

import { roundHalfEven } from "./resize.js";

const UNSURE = "unsure";

/**
 * Returns the columns of a face.
 *
 * @param number Number of the face in its picture, from 1.
 * @param face The detected face; null if no detector was run.
 * @param columns The network's values by name.
 * @param tasks The descriptions of the tasks.
 */
export function answerFace(number, face, columns, tasks) {
  const [left, top, right, bottom] = (face?.box ?? [null, null, null, null]).map((side) => rounded(side, 1));
  const answer = { face: number, left, top, right, bottom, score: rounded(face?.score ?? null, 3) };
  for (const task of tasks) {
    const required = task.kind === "number" ? task.columns.slice(0, 1) : task.columns;
    if (!required.every((name) => Number.isFinite(columns[name]))) {
      throw new Error("the network's output is not a number");
    }
    task.columns.forEach((name, i) => {
      answer[name] = Number.isFinite(columns[name]) ? rounded(columns[name], task.digits[i]) : null;
    });
    if (task.kind !== "number") answer[task.name] = predictedClass(task, columns);
  }
  return answer;
}

function predictedClass(task, columns) {
  const given = task.columns.map((name) => columns[name]);
  const probabilities = task.kind === "binary" ? [1 - given[0], given[0]] : given;
  const highest = Math.max(...probabilities);
  return highest >= task.min_confidence ? task.classes[probabilities.indexOf(highest)] : UNSURE;
}

/** Rounds to decimals; `null` decimals mean an integer. */
function rounded(value, decimals) {
  if (value === null) return null;
  return decimals === null ? roundHalfEven(value) : Number(value.toFixed(decimals));
}
