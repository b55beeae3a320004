/** Read and write picture files: PNG to the bit everywhere, and other formats by the browser. */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by colour type
const PALETTE = 3;
// The passes of Adam7: first column, first row, step across, step down.
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

/** The file is no picture that can be read. */
export class PictureError extends Error {
  name = "PictureError";
}

/**
 * Read a picture in a browser: PNG by `readPng`, every other format as the browser decodes it.
 *
 * Where another format has alpha, the canvas may change its colours by a level.
 */
export async function readPicture(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (isPng(bytes)) return readPng(bytes);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new PictureError(`${blob.name ?? "the file"} is no picture that this browser can read`);
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

/**
 * Read a PNG file: {width, height, data}, upright, with 8 bits per channel and 1 to 4 channels.
 *
 * 16 bits are reduced to the higher 8; colour profiles and gamma are ignored, as docs/preprocessing.md says.
 */
export async function readPng(bytes) {
  if (!isPng(bytes)) throw new PictureError("the file is no PNG");
  try {
    return await decode(bytes);
  } catch (error) {
    throw error instanceof PictureError ? error : new PictureError(`the PNG file is damaged: ${error.message}`);
  }
}

/** Write an image, height · width · (1 or 3) bytes, as a PNG file. */
export async function writePng(image, width, height) {
  const channels = image.length / (width * height);
  if (channels !== 1 && channels !== 3) {
    throw new RangeError(`an image of ${width} × ${height} pixels cannot have ${image.length} bytes`);
  }
  const length = width * channels;
  const rows = new Uint8Array(height * (1 + length));
  for (let y = 0; y < height; y++) rows.set(image.subarray(y * length, (y + 1) * length), y * (1 + length) + 1);
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  header.setUint8(9, channels === 1 ? 0 : 2);
  const data = await piped(rows, new CompressionStream("deflate"));
  const parts = [chunk("IHDR", new Uint8Array(header.buffer)), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return concatenated([Uint8Array.from(SIGNATURE), ...parts]);
}

function isPng(bytes) {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

async function decode(bytes) {
  const chunks = { IDAT: [] };
  for (const [type, content] of chunksOf(bytes)) {
    if (type === "IDAT") chunks.IDAT.push(content);
    else if (type === "iTXt") chunks.XMP ??= await xmp(content);
    else chunks[type] ??= content;
  }
  if (!chunks.IHDR || !chunks.IDAT.length) throw new PictureError("the PNG file is truncated");
  const header = view(chunks.IHDR);
  const [width, height] = [header.getUint32(0), header.getUint32(4)];
  const [depth, type, interlaced] = [8, 9, 12].map((at) => header.getUint8(at));
  const data = await piped(concatenated(chunks.IDAT), new DecompressionStream("deflate"));
  const samples = new Uint8Array(width * height * CHANNELS[type]);
  let at = 0;
  for (const [x, y, across, down] of interlaced ? PASSES : [[0, 0, 1, 1]]) {
    const [columns, rows] = [Math.ceil((width - x) / across), Math.ceil((height - y) / down)];
    if (columns <= 0 || rows <= 0) continue;
    const place = (i, j) => (y + j * down) * width + x + i * across;
    at = readPass(data, at, columns, rows, depth, CHANNELS[type], samples, place);
  }
  const pixels = coloured(samples, type, depth, chunks.PLTE, chunks.tRNS);
  const orientation = (chunks.eXIf && exifOrientation(chunks.eXIf)) ?? xmpOrientation(chunks.XMP) ?? 1;
  return upright(width, height, pixels, orientation);
}

function* chunksOf(bytes) {
  const all = view(bytes);
  for (let at = SIGNATURE.length; at + 12 <= bytes.length;) {
    const length = all.getUint32(at);
    yield [String.fromCharCode(...bytes.subarray(at + 4, at + 8)), bytes.subarray(at + 8, at + 8 + length)];
    at += 12 + length;
  }
}

/** Undo the filters of one pass, and put its samples in their places. Return where the next pass begins. */
function readPass(data, at, columns, rows, depth, channels, samples, place) {
  const length = Math.ceil((columns * channels * depth) / 8);
  const back = Math.max(1, (channels * depth) / 8);
  if (at + rows * (1 + length) > data.length) throw new PictureError("the PNG file is truncated");
  let above = new Uint8Array(length);
  for (let j = 0; j < rows; j++) {
    const filter = data[at];
    const line = data.slice(at + 1, at + 1 + length);
    at += 1 + length;
    for (let i = 0; i < length; i++) {
      const a = i < back ? 0 : line[i - back];
      const b = above[i];
      if (filter === 1) line[i] += a;
      else if (filter === 2) line[i] += b;
      else if (filter === 3) line[i] += (a + b) >> 1;
      else if (filter === 4) line[i] += paeth(a, b, i < back ? 0 : above[i - back]);
    }
    for (let i = 0; i < columns; i++) {
      const to = place(i, j) * channels;
      for (let c = 0; c < channels; c++) {
        const bit = (i * channels + c) * depth;
        const byte = line[bit >> 3];
        samples[to + c] = depth >= 8 ? byte : (byte >> (8 - depth - (bit & 7))) & ((1 << depth) - 1);
      }
    }
    above = line;
  }
  return at;
}

function paeth(a, b, c) {
  const pa = Math.abs(b - c);
  const pb = Math.abs(a - c);
  const pc = Math.abs(a + b - 2 * c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

/** Return pixels of 8-bit channels, with alpha where the file has transparency. */
function coloured(samples, type, depth, palette, transparency) {
  if (type === PALETTE) {
    const bytes = transparency ? 4 : 3;
    const pixels = new Uint8Array(samples.length * bytes).fill(255);
    samples.forEach((entry, i) => {
      for (let c = 0; c < 3; c++) pixels[i * bytes + c] = palette[3 * entry + c];
      if (entry < transparency?.length) pixels[i * bytes + 3] = transparency[entry];
    });
    return pixels;
  }
  const channels = CHANNELS[type];
  const values = depth < 8 ? samples.map((v) => (v * 255) / (2 ** depth - 1)) : samples;
  if (!transparency || depth === 16 || channels % 2 === 0) return values;
  const clear = Array.from({ length: channels }, (_, c) => view(transparency).getUint16(2 * c));
  const pixels = new Uint8Array((samples.length / channels) * (channels + 1)).fill(255);
  for (let i = 0; i < samples.length / channels; i++) {
    for (let c = 0; c < channels; c++) pixels[i * (channels + 1) + c] = values[i * channels + c];
    if (clear.every((v, c) => v === samples[i * channels + c])) pixels[i * (channels + 1) + channels] = 0;
  }
  return pixels;
}

/** Undo an EXIF orientation (EXIF 2.3, 4.6.4). */
function upright(width, height, data, orientation) {
  if (!(orientation > 1 && orientation <= 8)) return { width, height, data };
  const turned = orientation > 4;
  const [w, h] = turned ? [height, width] : [width, height];
  const bytes = data.length / (width * height);
  const result = new Uint8Array(data.length);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      let [column, row] = turned ? [y, x] : [x, y];
      if ([2, 3, 7, 8].includes(orientation)) column = width - 1 - column;
      if ([3, 4, 6, 7].includes(orientation)) row = height - 1 - row;
      const from = (row * width + column) * bytes;
      for (let c = 0; c < bytes; c++) result[(y * w + x) * bytes + c] = data[from + c];
    }
  }
  return { width: w, height: h, data: result };
}

function exifOrientation(bytes) {
  try {
    const start = String.fromCharCode(...bytes.subarray(0, 4)) === "Exif" ? 6 : 0;
    const exif = view(bytes.subarray(start));
    const little = exif.getUint8(0) === 0x49;
    const directory = exif.getUint32(4, little);
    for (let i = 0; i < exif.getUint16(directory, little); i++) {
      const entry = directory + 2 + 12 * i;
      if (exif.getUint16(entry, little) === 0x0112) return exif.getUint16(entry + 8, little);
    }
  } catch {
    // Metadata that cannot be read count as none.
  }
  return undefined;
}

function xmpOrientation(text) {
  const found = text?.match(/tiff:Orientation(?:="|>)([0-9])/);
  return found ? Number(found[1]) : undefined;
}

async function xmp(content) {
  const end = content.indexOf(0);
  if (new TextDecoder().decode(content.subarray(0, end)) !== "XML:com.adobe.xmp") return undefined;
  const compressed = content[end + 1];
  const text = content.subarray(content.indexOf(0, content.indexOf(0, end + 3) + 1) + 1); // after two more fields
  return new TextDecoder().decode(compressed ? await piped(text, new DecompressionStream("deflate")) : text);
}

function chunk(type, content) {
  const bytes = new Uint8Array(12 + content.length);
  view(bytes).setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(content, 8);
  view(bytes).setUint32(8 + content.length, crc32(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function concatenated(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

async function piped(bytes, transform) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(transform)).arrayBuffer());
}
