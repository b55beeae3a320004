/**
 * Read a rae-serve bundle, and generate, encode and edit images with it in a browser or in Node.
 *
 * The rules are those of docs/bundle.md, docs/noise.md and docs/preprocessing.md. An image is a Uint8Array of
 * height · width · channels bytes; a latent or a row of noise is a Float32Array.
 */

const SCHEMA_VERSION = 2;
const ALGORITHM = "philox4x32-10/v1";
const MAX_BATCH = 64; // rows of one run: the memory of a run grows with it
const MAX_MAGNITUDE = 1e6; // of one number of a latent or of noise, as in the HTTP API
const GRAPHS = {
  prior: { input: "noise", output: "latent", type: "float32", Data: Float32Array },
  decoder: { input: "latent", output: "image", type: "float32", Data: Float32Array },
  encoder: { input: "image", output: "latent", type: "uint8", Data: Uint8Array },
};

/** The bundle is missing, damaged, or of a version that this module does not read. */
export class BundleError extends Error {
  name = "BundleError";
}

/**
 * Read and check the manifest of a bundle. Graphs are fetched when they are first needed, or by `open`.
 *
 * `source` is the address of the bundle's folder, or a function that returns the bytes of a file by its name.
 * `ort` is onnxruntime-web or onnxruntime-node. `onProgress` is called with {file, loaded, total} in bytes.
 */
export async function loadBundle(source, ort, { sessionOptions = {}, onProgress = () => {} } = {}) {
  const folder = `${source}`.replace(/\/$/, "");
  const read = typeof source === "function" ? source : (name, report) => download(`${folder}/${name}`, report);
  const bytes = await readFile(read, "manifest.json", () => {});
  const text = new TextDecoder().decode(bytes);
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch (error) {
    throw new BundleError(`manifest.json cannot be read: ${error.message}`);
  }
  if (manifest?.schema_version !== SCHEMA_VERSION) {
    const advice = manifest?.schema_version === 1 ? "; run rae-serve upgrade on the bundle" : "";
    const version = JSON.stringify(manifest?.schema_version);
    throw new BundleError(
      `manifest.json has schema version ${version}, and this module reads ${SCHEMA_VERSION}${advice}`,
    );
  }
  const zeros = text.replace(String(manifest.checksum), "0".repeat(64));
  if (manifest.checksum !== (await sha256(new TextEncoder().encode(zeros)))) {
    throw new BundleError("manifest.json is damaged: its checksum does not match; copy the bundle again");
  }
  if (manifest.noise.algorithm !== ALGORITHM) {
    throw new BundleError(`the bundle needs noise ${manifest.noise.algorithm}, and this module makes ${ALGORITHM}`);
  }
  return new Bundle(manifest, read, ort, sessionOptions, onProgress);
}

/** A model: the manifest and the graphs of a bundle. `loadBundle` makes it. */
export class Bundle {
  #read;
  #ort;
  #sessionOptions;
  #onProgress;
  #sessions = {};
  #last = Promise.resolve(); // the latest run: onnxruntime-web refuses a second one beside it

  constructor(manifest, read, ort, sessionOptions, onProgress) {
    this.manifest = manifest;
    this.#read = read;
    this.#ort = ort;
    this.#sessionOptions = sessionOptions;
    this.#onProgress = onProgress;
  }

  /** Return the directions to each end that has a name: the attributes and their opposites. */
  get directions() {
    const attributes = Object.entries(this.manifest.attributes);
    const opposites = attributes.filter(([, { opposite }]) => opposite != null);
    return new Map([
      ...opposites.map(([, { opposite, direction }]) => [opposite, direction.map((x) => -x)]),
      ...attributes.map(([name, { direction }]) => [name, direction]),
    ]);
  }

  /** Return the bytes to download for these graphs: "prior", "decoder", "encoder". */
  size(...graphs) {
    return graphs.reduce((sum, graph) => sum + this.#described(`${graph}.onnx`).bytes, 0);
  }

  /** Fetch a file of the bundle, and check its size and hash. */
  async file(name) {
    const { bytes: total, sha256: hash } = this.#described(name);
    const bytes = await readFile(this.#read, name, (loaded) => this.#onProgress({ file: name, loaded, total }));
    if (bytes.length !== total || (await sha256(bytes)) !== hash) {
      throw new BundleError(`${name} is damaged: it is not the file that the manifest describes; copy it again`);
    }
    this.#onProgress({ file: name, loaded: total, total });
    return bytes;
  }

  /** Fetch, check and open graphs, so that later calls need not wait for them. */
  async open(...graphs) {
    await Promise.all(graphs.map((graph) => this.#session(graph)));
  }

  /** Return the noise of n rows of a seed, times the temperature in its gaussian columns. */
  noise({ seed, row = 0, n = 1, temperature = 1 }) {
    if (!(temperature >= 0 && temperature <= 10)) {
      throw new RangeError(`temperature must be from 0 to 10, not ${temperature}`);
    }
    const { dim, roles } = this.manifest.noise;
    const factors = roles.map((role) => (role === "gaussian" ? Math.fround(temperature) : 1));
    return noise(seed, row, n, dim).map((z) => z.map((x, i) => x * factors[i]));
  }

  /** Generate n images, those of the rows `row` … `row + n − 1` of a seed. */
  async sample({ seed, row = 0, n = 1, temperature = 1 }) {
    return this.decode(await this.latents(this.noise({ seed, row, n, temperature })));
  }

  /** Turn rows of noise into latents by the prior. */
  async latents(noise) {
    return this.#run("prior", rowsOf("noise", noise, this.manifest.noise.dim), [this.manifest.noise.dim]);
  }

  /** Decode latents to images. */
  async decode(latents) {
    return this.#run("decoder", rowsOf("latents", latents, this.manifest.latent.dim), [this.manifest.latent.dim]);
  }

  /** Turn a picture of any size into the image that the encoder takes. */
  prepare(picture) {
    return prepare(picture, this.manifest.image);
  }

  /** Encode images of the model's shape to latents. */
  async encode(images) {
    const { height, width, mode } = this.manifest.image;
    const shape = [height, width, mode.length === 3 ? 3 : 1];
    const bytes = shape.reduce((a, b) => a * b);
    const isImage = (image) => ArrayBuffer.isView(image) && image.BYTES_PER_ELEMENT === 1 && image.length === bytes;
    if (!Array.isArray(images) || !images.length || !images.every(isImage)) {
      throw new RangeError(`images must be an array of Uint8Arrays of ${bytes} bytes (${shape.join(" × ")})`);
    }
    return this.#run("encoder", images, shape);
  }

  /** Encode images, and decode their latents. */
  async reconstruct(images) {
    return this.decode(await this.encode(images));
  }

  /**
   * Return the latents from `start` to `end`, both included.
   *
   * The ends are latents, or rows of noise where `space` is "noise". `path` is "linear" or "spherical".
   */
  async between(start, end, steps, { space = "latent", path = "linear" } = {}) {
    const { noise, latent } = this.manifest;
    known("space", space, ["latent", "noise"]);
    if (space === "latent") {
      return between(...rowsOf("the ends", [start, end], latent.dim), steps, path, latent.mean);
    }
    const [first, last] = rowsOf("the ends", [start, end], noise.dim);
    return this.latents(betweenNoises(first, last, steps, path, noise.roles));
  }

  /** Make the images from `start` to `end`, as `between` makes latents. */
  async interpolate(start, end, steps, options) {
    return this.decode(await this.between(start, end, steps, options));
  }

  /** Move each latent along an attribute by each strength: all strengths of the first latent, then of the second … */
  moved(latents, attribute, strengths) {
    const direction = this.directions.get(attribute);
    if (!direction) {
      const names = [...this.directions.keys()].join(", ") || "none";
      throw new RangeError(`the model has no attribute ${JSON.stringify(attribute)}; it has ${names}`);
    }
    return along(rowsOf("latents", latents, direction.length), direction, strengths);
  }

  /** Make the images of `moved`. */
  async edit(latents, attribute, strengths) {
    return this.decode(this.moved(latents, attribute, strengths));
  }

  /** Return an image as ImageData's bytes, red, green, blue and alpha. */
  toRGBA(image) {
    const channels = this.manifest.image.mode.length === 3 ? 3 : 1;
    const pixels = new Uint8ClampedArray((image.length / channels) * 4).fill(255);
    for (let i = 0; i < pixels.length / 4; i++) {
      for (let c = 0; c < 3; c++) pixels[4 * i + c] = image[i * channels + (channels === 3 ? c : 0)];
    }
    return pixels;
  }

  #described(name) {
    const file = this.manifest.files[name];
    if (!file) throw new BundleError(`the bundle has no ${name}`);
    return file;
  }

  #session(graph) {
    this.#sessions[graph] ??= this.file(`${graph}.onnx`)
      .then((bytes) => this.#inTurn(() => this.#ort.InferenceSession.create(bytes, this.#sessionOptions)))
      .catch((error) => {
        delete this.#sessions[graph]; // so that a later call tries again
        throw error;
      });
    return this.#sessions[graph];
  }

  #inTurn(task) {
    const done = this.#last.then(task);
    this.#last = done.catch(() => {});
    return done;
  }

  async #run(graph, rows, shape) {
    const session = await this.#session(graph);
    const { input, output, type, Data } = GRAPHS[graph];
    const length = rows[0].length;
    const results = [];
    for (let first = 0; first < rows.length; first += MAX_BATCH) {
      const batch = rows.slice(first, first + MAX_BATCH);
      const data = new Data(batch.length * length);
      batch.forEach((row, i) => data.set(row, i * length));
      const tensor = new this.#ort.Tensor(type, data, [batch.length, ...shape]);
      const outputs = await this.#inTurn(() => session.run({ [input]: tensor }));
      const values = outputs[output].data;
      const size = values.length / batch.length;
      for (let i = 0; i < batch.length; i++) results.push(values.slice(i * size, (i + 1) * size));
    }
    return results;
  }
}

// ---- Noise: docs/noise.md

// Polynomials of AS 241 (Wichura 1988, routine PPND16), lowest power first.
const A = [
  3.387132872796366608, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
  4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
];
const B = [
  1, 4.2313330701600911252e1, 6.871870074920579083e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
  3.930789580009271061e4, 2.8729085735721942674e4, 5.226495278852854561e3,
];
const C = [
  1.42343711074968357734, 4.6303378461565452959, 5.7694972214606914055, 3.64784832476320460504, 1.27045825245236838258,
  2.4178072517745061177e-1, 2.27238449892691845833e-2, 7.7454501427834140764e-4,
];
const D = [
  1, 2.05319162663775882187, 1.6763848301838038494, 6.8976733498510000455e-1, 1.4810397642748007459e-1,
  1.51986665636164571966e-2, 5.475938084995344946e-4, 1.05075007164441684324e-9,
];
const LOGARITHM = Array.from({ length: 11 }, (_, k) => 1 / (2 * k + 1));

/** Return the noise of the rows `row` … `row + n − 1` of a seed, each a Float32Array of `dim` numbers. */
export function noise(seed, row, n, dim) {
  for (const [name, value, least] of [
    ["seed", seed, 0],
    ["row", row, 0],
    ["n", n, 1],
    ["row + n − 1", row + (n - 1), 0],
  ]) {
    if (!Number.isSafeInteger(value) || value < least) {
      throw new RangeError(`${name} must be an integer from ${least} to ${Number.MAX_SAFE_INTEGER}, not ${value}`);
    }
  }
  return Array.from({ length: n }, (_, i) => {
    const z = new Float32Array(dim);
    for (let column = 0; column < dim; column += 4) {
      const words = philox([column / 4, 0, ...halves(row + i)], halves(seed));
      words.slice(0, dim - column).forEach((word, k) => (z[column + k] = normal(word)));
    }
    return z;
  });
}

function halves(integer) {
  return [integer >>> 0, Math.floor(integer / 2 ** 32)];
}

function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < 10; round++) {
    const [p, pLow] = product(0xd2511f53, c0);
    const [q, qLow] = product(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(q ^ c1 ^ k0) >>> 0, qLow, (p ^ c3 ^ k1) >>> 0, pLow];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Return the upper and the lower 32 bits of the product of two words. */
function product(a, b) {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return [aHigh * bHigh + (middle >>> 16) + (carry >>> 16), Math.imul(a, b) >>> 0];
}

function normal(word) {
  const q = (word - 2147483647.5) / 4294967296;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return q * (polynomial(A, r) / polynomial(B, r));
  }
  const odd = 2 * Math.min(word, 2 ** 32 - 1 - word) + 1;
  let exponent = 31 - Math.clz32(odd);
  let m = odd / 2 ** exponent;
  if (m > 1.4142135623730951) [m, exponent] = [m / 2, exponent + 1];
  const s = (m - 1) / (m + 1);
  const logarithm = 2 * s * polynomial(LOGARITHM, s * s) + (exponent - 33) * 0.6931471805599453;
  const r = Math.sqrt(-logarithm) - 1.6;
  return Math.sign(q) * (polynomial(C, r) / polynomial(D, r));
}

function polynomial(coefficients, x) {
  return coefficients.reduceRight((result, coefficient) => result * x + coefficient, 0);
}

// ---- Interpolation and edits: docs/bundle.md

/** Return `steps` points from a to b, both included: a line, or the arc around `centre` ("spherical"). */
export function between(a, b, steps, path = "linear", centre = new Float32Array(a.length)) {
  known("path", path, ["linear", "spherical"]);
  if (!Number.isSafeInteger(steps) || steps < 1) throw new RangeError(`steps must be a positive integer, not ${steps}`);
  const [from, to] = [a, b].map((point) => Array.from(point, (x, i) => x - centre[i]));
  const dot = (u, v) => u.reduce((sum, x, i) => sum + x * v[i], 0);
  const norms = Math.sqrt(dot(from, from)) * Math.sqrt(dot(to, to));
  const angle = path === "spherical" && norms ? Math.acos(Math.max(-1, Math.min(1, dot(from, to) / norms))) : 0;
  const isArc = angle > 1e-6 && angle < Math.PI - 1e-6;
  return Array.from({ length: steps }, (_, i) => {
    const t = fraction(i, steps);
    if (i === 0) return Float32Array.from(a);
    if (i === steps - 1) return Float32Array.from(b);
    const [u, v] = isArc ? [1 - t, t].map((part) => Math.sin(part * angle) / Math.sin(angle)) : [1 - t, t];
    return Float32Array.from(from, (x, k) => u * x + v * to[k] + centre[k]);
  });
}

/**
 * Return `steps` rows of noise from a to b: gaussian columns by `between`; choice columns are those of a in the first
 * half and of b in the second.
 */
export function betweenNoises(a, b, steps, path, roles) {
  const gaussian = roles.flatMap((role, i) => (role === "gaussian" ? [i] : []));
  const part = (row) => gaussian.map((i) => row[i]);
  return between(part(a), part(b), steps, path).map((point, i) => {
    const row = Float32Array.from(fraction(i, steps) < 0.5 ? a : b);
    gaussian.forEach((column, k) => (row[column] = point[k]));
    return row;
  });
}

/** Add each strength × direction to each latent. */
export function along(latents, direction, strengths) {
  if (!strengths.length || !strengths.every((strength) => Math.abs(strength) <= 100)) {
    throw new RangeError(`strengths must be numbers within ±100, at least one, not ${JSON.stringify(strengths)}`);
  }
  const move = (latent, strength) => Float32Array.from(latent, (x, i) => x + strength * direction[i]);
  return latents.flatMap((latent) => strengths.map((strength) => move(latent, strength)));
}

function fraction(i, steps) {
  return steps > 1 ? i / (steps - 1) : 0;
}

// ---- From a picture to an image: docs/preprocessing.md, steps 3 to 6

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const FILTERS = {
  // half width, and the weight at x
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (x === 0 ? 1 : Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0)],
  bicubic: [2, (x) => cubic(Math.abs(x), -0.5)],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const ONE = 4194304; // weight 1

function cubic(x, c) {
  if (x < 1) return ((c + 2) * x - (c + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * c : 0;
}

/**
 * Turn a picture into the image that an encoder takes.
 *
 * `picture` has `width`, `height` and 8-bit `data`, with 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA) bytes a pixel,
 * upright and alpha not premultiplied: ImageData, or the result of `readPng`. `rules` is `image` of the manifest.
 */
export function prepare({ width, height, data }, rules) {
  const bytes = data.length / (width * height);
  if (![1, 2, 3, 4].includes(bytes)) {
    throw new RangeError(`a picture of ${width} × ${height} pixels cannot have ${data.length} bytes`);
  }
  known("resize", rules.resize, ["nearest", ...Object.keys(FILTERS)]);
  const channels = rules.mode.length === 3 ? 3 : 1;
  const pixels = new Uint8Array(width * height * channels);
  const [green, blue] = bytes > 2 ? [1, 2] : [0, 0]; // places of the colours in a pixel
  for (let i = 0; i < width * height; i++) {
    const at = i * bytes;
    const alpha = bytes % 2 ? 255 : data[at + bytes - 1];
    const r = blended(data[at], alpha, rules.background);
    const g = blended(data[at + green], alpha, rules.background);
    const b = blended(data[at + blue], alpha, rules.background);
    if (channels === 1) pixels[i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else [pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]] = [r, g, b];
  }
  const [left, top, right, bottom] = cropBox(width, height, rules).map(Math.fround);
  const across = resample(pixels, height, width, channels, taps(width, rules.width, left, right, rules.resize));
  return resample(across, 1, height, rules.width * channels, taps(height, rules.height, top, bottom, rules.resize));
}

function blended(value, alpha, background) {
  const t = value * alpha + background * (255 - alpha) + 128;
  return (t + (t >> 8)) >> 8;
}

function cropBox(width, height, rules) {
  if (rules.crop === "none") return [0, 0, width, height];
  const scale = Math.min(width / rules.width, height / rules.height);
  let [u, v] = [Math.min(width, rules.width * scale), Math.min(height, rules.height * scale)];
  if (rules.crop !== "center" && rules.crop <= Math.min(width, height)) u = v = rules.crop;
  const [left, top] = [(width - u) / 2, (height - v) / 2];
  return [left, top, left + u, top + v];
}

/** Return, for each of m pixels, the first of the n pixels that it depends on, and the integer weights from there on. */
function taps(n, m, a, b, resize) {
  if (resize === "nearest") {
    const scale = (b - a) / m;
    let x = a + 0.5 * scale;
    return Array.from({ length: m }, () => {
      const first = Math.floor(x);
      x += scale;
      return { first, weights: [ONE] };
    });
  }
  const [half, weight] = FILTERS[resize];
  const scale = Math.fround(b - a) / m;
  const wide = Math.max(scale, 1);
  const reach = half * wide;
  return Array.from({ length: m }, (_, i) => {
    const centre = a + (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - reach + 0.5));
    const end = Math.min(n, Math.floor(centre + reach + 0.5));
    const w = Array.from({ length: end - first }, (_, k) => weight((first + k - centre + 0.5) * (1 / wide)));
    const sum = w.reduce((total, x) => total + x, 0);
    return { first, weights: w.map((x) => Math.sign(x) * Math.floor((Math.abs(x) / sum) * ONE + 0.5)) };
  });
}

/** Resample the second axis of [lines, n, size]. */
function resample(pixels, lines, n, size, taps) {
  const result = new Uint8ClampedArray(lines * taps.length * size);
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < taps.length; i++) {
      const { first, weights } = taps[i];
      for (let c = 0; c < size; c++) {
        const from = (line * n + first) * size + c;
        let sum = ONE / 2;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * pixels[from + k * size];
        result[(line * taps.length + i) * size + c] = Math.floor(sum / ONE);
      }
    }
  }
  return new Uint8Array(result.buffer);
}

// ---- Files and checks

async function readFile(read, name, report) {
  try {
    return new Uint8Array(await read(name, report));
  } catch (error) {
    throw error instanceof BundleError ? error : new BundleError(`${name} cannot be read: ${error.message}`);
  }
}

/** Return the bytes of an address, and report how many have come. */
export async function download(address, report) {
  const response = await fetch(address);
  if (!response.ok) throw new BundleError(`${address} cannot be read: HTTP status ${response.status}`);
  let loaded = 0;
  const counter = new TransformStream({
    transform(chunk, controller) {
      report((loaded += chunk.length));
      controller.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(counter)).arrayBuffer();
}

async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError("hashes cannot be checked without WebCrypto: browsers have it for https and localhost only");
  }
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function known(name, value, values) {
  if (!values.includes(value)) throw new RangeError(`${name} must be ${values.join(" or ")}, not ${value}`);
}

function rowsOf(name, rows, dim) {
  if (!Array.isArray(rows) || !rows.length) throw new RangeError(`${name} must be an array of at least one row`);
  for (const row of rows) {
    if (row?.length !== dim) throw new RangeError(`${name} must have ${dim} numbers a row, not ${row?.length}`);
    for (const x of row) {
      if (!(Math.abs(x) <= MAX_MAGNITUDE))
        throw new RangeError(`${name} must be numbers within ±${MAX_MAGNITUDE}, not ${x}`);
    }
  }
  return rows;
}
