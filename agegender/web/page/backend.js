// The server as the page's backend. A static site (agegender/web/site) replaces this file by its own.

const UNREACHABLE = "the server can't be reached";

export const PRIVACY =
  "A picture is sent to this server only. It is kept in memory until it is processed, and then discarded.";

/** Returns a command that gets the predictions of a picture from a script; null if there is none. */
export function scriptCommand() {
  return `curl --data-binary @photo.jpg ${new URL("api/predict", location.href)}`;
}

/** Returns the description of the model, of the limits and of the samples: the response of api/info. */
export async function loadInfo() {
  const response = await request("api/info");
  return response.json();
}

/**
 * Returns the predictions of a picture in the form of the API: width, height, faces and error.
 *
 * @param file The picture, a Blob.
 * @param detect Whether to detect faces: auto, always or never; null for the default.
 * @param signal Aborts the request.
 */
export async function predict(file, detect, signal) {
  const address = detect ? `api/predict?detect=${detect}` : "api/predict";
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  const response = await request(address, { method: "POST", body: file, headers, signal });
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.error || `the server responded with ${response.status} ${response.statusText}`);
  return content;
}

function request(address, options) {
  return fetch(address, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error(UNREACHABLE);
  });
}
