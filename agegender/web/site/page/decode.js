// Decoding of a picture into pixels, upright and on white, as agegender/data/decode.py does it.

/**
 * Returns an image `{ width, height, data }`; `data` holds red, green, blue and an unused byte for each pixel.
 *
 * @param file The picture, a Blob.
 * @param maxMegapixels Limit of its size.
 */
export async function decode(file, maxMegapixels) {
  if (file.size === 0) throw new Error("the file is empty");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image", // EXIF
      colorSpaceConversion: "none", // Pillow ignores color profiles as well
      premultiplyAlpha: "none",
    });
  } catch {
    throw new Error("not a picture that this browser can read");
  }
  const { width, height } = bitmap;
  try {
    const megapixels = (width * height) / 1e6;
    if (megapixels > maxMegapixels) {
      throw new Error(`too many pixels: ${megapixels.toFixed(1)} megapixels; the limit is ${maxMegapixels} megapixels`);
    }
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    pen.fillStyle = "#ffffff";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(bitmap, 0, 0);
    return pen.getImageData(0, 0, width, height);
  } finally {
    bitmap.close();
  }
}
