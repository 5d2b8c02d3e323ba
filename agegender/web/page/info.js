// The server's information: limits, meaning of the predictions, metrics by age, and samples.

/**
 * Fills in the page.
 *
 * @param the Returns an element by its id.
 * @param info The response of api/info.
 * @param trySample Callback for a clicked sample and its name.
 */
export function showInfo(the, info, trySample) {
  the("limits").textContent = `Up to ${info.max_upload_mb} MB and ${info.max_megapixels} megapixels.`;
  the("meaning").replaceChildren(...info.meaning.map((text) => element("p", text)));
  the("about").textContent = `agegender ${info.version}, weights ${info.weights}`;
  the("curl").textContent = `curl --data-binary @photo.jpg ${new URL("api/predict", location.href)}`;
  showMetrics(the, info.figures);
  the("samples").replaceChildren(...info.samples.map((sample, i) => sampleButton(sample, i + 1, trySample)));
  the("tries").hidden = info.samples.length === 0;
}

function showMetrics(the, metrics) {
  if (!metrics) {
    the("figures").textContent = "There are no test metrics of these weights.";
    return;
  }
  const parts = [];
  if (metrics.age_mae !== null) parts.push(`the age is off by ${years(metrics.age_mae)} years on average`);
  if (metrics.gender_acc !== null) parts.push(`the gender agrees with the label for ${percentage(metrics.gender_acc)}`);
  const faces = metrics.images === null ? "the test faces" : `${metrics.images.toLocaleString("en")} test faces`;
  if (parts.length) the("figures").textContent = `Measured on ${faces}: ${parts.join(", and ")}.`;
  if (!metrics.bands) {
    the("figures").append(" Metrics by age were not measured.");
    return;
  }
  const rows = metrics.bands.map((band) => {
    const row = document.createElement("tr");
    const cells = [band.ages.replace("-", "–"), band.images, years(band.age_mae), percentage(band.gender_acc), percentage(band.coverage)];
    for (const text of cells) row.insertCell().textContent = text;
    return row;
  });
  the("bands").querySelector("tbody").replaceChildren(...rows);
  the("bands").hidden = false;
}

function years(value) {
  return value === null ? "–" : value.toFixed(1);
}

function percentage(value) {
  return value === null ? "–" : `${(100 * value).toFixed(0)} %`;
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
