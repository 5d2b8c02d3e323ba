// The backend's information: tasks, limits, meaning of the predictions, metrics by age, and samples.

import { joined, percentage } from "./texts.js";

/**
 * Fills in the page.
 *
 * @param the Returns an element by its id.
 * @param info The information, see `loadInfo` of the backend.
 * @param trySample Callback for a clicked sample and its name.
 */
export function showInfo(the, info, trySample) {
  const size = info.max_upload_mb === null ? "" : `${info.max_upload_mb} MB and `;
  the("limits").textContent = `Up to ${size}${info.max_megapixels} megapixels.`;
  the("meaning").replaceChildren(...info.meaning.map((text) => element("p", text)));
  the("about").textContent = `agegender ${info.version}, weights ${info.weights}`;
  showTasks(the, info.tasks);
  showMetrics(the, info.figures, info.tasks);
  the("samples").replaceChildren(...info.samples.map((sample, i) => sampleButton(sample, i + 1, trySample)));
  the("tries").hidden = info.samples.length === 0;
}

function showTasks(the, tasks) {
  const names = tasks.map((task) => task.name).join(", ").replace(/, ([^,]*)$/, " and $1");
  document.title = `agegender: ${names} from faces`;
  const parts = tasks.map(({ name, kind }) => {
    return `${/^[aeiou]/i.test(name) ? "an" : "a"} ${name} with ${kind === "number" ? "an interval" : "its probability"}`;
  });
  the("predicts").textContent = `Predictions for the faces in a picture: ${joined(parts)}.`;
  const heads = tasks.flatMap(({ name, kind }) => [name, kind === "number" ? "80 % interval" : "proba\u00ADbility"]);
  the("interval").hidden = !tasks.some((task) => task.kind === "number");
  the("faces").tHead.rows[0].cells[0].after(...heads.map(head));
}

function showMetrics(the, metrics, tasks) {
  if (!metrics) {
    the("figures").textContent = "There are no test metrics of these weights.";
    return;
  }
  const parts = [];
  for (const task of tasks) {
    const value = metrics[metricOf(task)];
    const size = task.kind === "number" ? `is off by ${[decimal(value), task.unit].join(" ").trim()} on average` : `agrees with the label for ${percentage(value)}`;
    if (value !== null) parts.push(`the ${task.name} ${size}`);
  }
  const faces = metrics.images === null ? "the test faces" : `${metrics.images.toLocaleString("en")} test faces`;
  if (parts.length) the("figures").textContent = `Measured on ${faces}: ${joined(parts)}.`;
  if (!metrics.bands) {
    the("figures").append(" Metrics by age were not measured.");
    return;
  }
  const rows = metrics.bands.map((band) => {
    const row = document.createElement("tr");
    const values = tasks.map((task) => (task.kind === "number" ? decimal : percentage)(band[metricOf(task)] ?? null));
    const cells = [band.ages.replace("-", "–"), band.images, ...values, percentage(band.coverage)];
    for (const text of cells) row.insertCell().textContent = text;
    return row;
  });
  the("bands").querySelector("tbody").replaceChildren(...rows);
  const several = tasks.filter((task) => task.kind === "number").length > 1;
  const heads = tasks.map(({ name, kind, unit }) => {
    return kind === "number" ? `${several ? `${name}: ` : ""}mean error${unit && `, ${unit}`}` : `${name} correct`;
  });
  the("bands").querySelector("tr").cells[1].after(...heads.map(head));
  the("bands").hidden = false;
}

function metricOf(task) {
  return `${task.name}_${task.kind === "number" ? "mae" : "acc"}`;
}

function decimal(value) {
  return value === null ? "–" : value.toFixed(1);
}

function head(text) {
  const made = element("th", text);
  made.scope = "col";
  return made;
}

function sampleButton(sample, number, trySample) {
  const button = document.createElement("button");
  const image = document.createElement("img");
  const name = `drawn sample ${number}`;
  image.src = sample.address;
  image.alt = name;
  button.type = "button";
  button.append(image);
  button.addEventListener("click", () => trySample(sample, name));
  return button;
}

function element(kind, text) {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}
