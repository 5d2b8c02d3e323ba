// The page's backend without a server: a worker of this browser finds the faces and runs the network.

export const PRIVACY = "A picture is processed in this browser and leaves this device at no time. Nothing is stored.";

const UNLOADABLE = "the files of this page can't be loaded";

let worker = null;

/** Returns null: there is no server that a script could send a picture to. */
export function scriptCommand() {
  return null;
}

/** Returns the description of the model, of the limits and of the samples; loads the model meanwhile. */
export async function loadInfo() {
  worker ??= startWorker();
  try {
    return await (await fetch("model.json")).json();
  } catch {
    throw new Error(UNLOADABLE);
  }
}

/**
 * Returns the predictions of a picture in the form of the API: width, height, faces and error.
 *
 * @param file The picture, a Blob.
 * @param detect Whether to detect faces: auto, always or never; null for the default.
 * @param signal Ends the worker, as its computations can't be interrupted otherwise.
 */
export function predict(file, detect, signal) {
  worker ??= startWorker();
  const mine = worker;
  return new Promise((resolve, reject) => {
    const end = () => {
      mine.terminate();
      if (worker === mine) worker = null;
      reject(new Error("aborted"));
    };
    signal.addEventListener("abort", end);
    mine.onmessage = ({ data }) => {
      signal.removeEventListener("abort", end);
      if (data.answer) resolve(data.answer);
      else reject(new Error(data.error));
    };
    mine.onerror = () => {
      reject(new Error(UNLOADABLE));
      end();
    };
    mine.postMessage({ file, detect });
  });
}

/** Starts the worker from a blob, so that the page's Content-Security-Policy holds in it; for a file it would not. */
function startWorker() {
  const script = `import ${JSON.stringify(new URL("./worker.js", import.meta.url).href)};`;
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const made = new Worker(address, { type: "module" });
  made.addEventListener("error", () => {
    if (worker === made) worker = null; // the next picture starts another one
  });
  return made;
}
