// Camera capture: one click opens the camera, another takes a frame and closes it.

/**
 * Connects the camera's buttons.
 *
 * @param the Returns an element by its id.
 * @param taken Callback for the frame, as a file.
 * @param fail Callback for an error message.
 */
export function startCamera(the, taken, fail) {
  const video = the("video");
  if (!navigator.mediaDevices?.getUserMedia) {
    the("open-camera").disabled = true;
    the("no-camera").hidden = false;
    the("no-camera").textContent = window.isSecureContext
      ? "This browser has no access to a camera."
      : "Browsers allow the camera only on pages of this computer (127.0.0.1) or over https.";
    return;
  }

  function close() {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    the("camera").hidden = true;
    the("open-camera").disabled = false;
  }

  the("open-camera").addEventListener("click", async () => {
    the("open-camera").disabled = true;
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 960 } },
        audio: false,
      });
      the("camera").hidden = false;
      await video.play();
      the("take").focus();
    } catch (error) {
      close();
      const reasons = { NotAllowedError: "access was denied", NotFoundError: "no camera was found" };
      fail(`the camera can't be used: ${reasons[error.name] ?? error.message}`);
    }
  });

  the("take").addEventListener("click", () => {
    if (!video.videoWidth) return; // no frame yet
    const frame = document.createElement("canvas");
    frame.width = video.videoWidth;
    frame.height = video.videoHeight;
    frame.getContext("2d").drawImage(video, 0, 0);
    close();
    the("open-camera").focus();
    frame.toBlob((file) => taken(file), "image/jpeg", 0.95);
  });

  the("close-camera").addEventListener("click", () => {
    close();
    the("open-camera").focus();
  });
}
