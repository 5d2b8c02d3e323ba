// The answers of all pictures as a CSV file, with the columns of predict.py, and the saving of files.

// First characters that spreadsheets take for a formula: as in agegender/system/csv_escape.py.
const FORMULA = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;

/**
 * Returns the answers as CSV: a row for each face, and one for each picture without a face.
 *
 * @param results For each picture its name, and either the backend's `answer` or an `error`.
 */
export function toCsv(results) {
  const faces = results.flatMap(({ answer }) => answer?.faces ?? []);
  const columns = Object.keys(faces[0] ?? { face: null });
  const rows = results.flatMap(({ name, answer, error }) => {
    const path = FORMULA.test(name) ? `./${name}` : name;
    if (!answer?.faces.length) return [[path, ...columns.map(() => null), error ?? answer.error]];
    return answer.faces.map((face) => [path, ...columns.map((column) => face[column]), null]);
  });
  return [["path", ...columns, "error"], ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Saves a blob as a file of this name. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
