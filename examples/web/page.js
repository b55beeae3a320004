// A page that uses a bundle on the visitor's device. It needs no server but one for static files.
import * as ort from "onnxruntime-web";
import { download, loadBundle } from "rae-bundle";
import { readPicture } from "rae-bundle/pictures.js";

const ROWS = 16; // images of a seed
const SLIDERS = 8;
const RUNTIME = new URL("ort-wasm-simd-threaded.wasm", import.meta.resolve("onnxruntime-web"));

const element = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const address =
  new URLSearchParams(location.search).get("bundle") ?? document.querySelector("meta[name=bundle]").content;
const transfers = new Map(); // from the name of a file to its {loaded, total} in bytes
let bundle;
let latent; // of the chosen image, without the edit
let label; // what the chosen image is

/** Run a task; show its error where the visitor sees it. */
async function attempt(task) {
  element("alert").hidden = true;
  try {
    await task();
  } catch (error) {
    element("alert").textContent = error.message;
    element("alert").hidden = false;
    element("status").textContent = "";
    element("progress").hidden = true;
  }
}

function onProgress({ file, loaded, total }) {
  transfers.set(file, { loaded, total });
  const sum = (key) => [...transfers.values()].reduce((bytes, transfer) => bytes + transfer[key], 0);
  element("progress").hidden = false;
  element("progress").value = sum("loaded") / sum("total");
  element("status").textContent = `${megabytes(sum("loaded"))} of ${megabytes(sum("total"))}`;
}

/** Show the progress of a task's downloads, until it ends. */
async function downloading(files, task) {
  transfers.clear();
  for (const [file, total] of files) onProgress({ file, loaded: 0, total });
  const result = await task();
  element("status").textContent = "";
  element("progress").hidden = true;
  return result;
}

function draw(canvas, image) {
  const { width, height } = bundle.manifest.image;
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(new ImageData(bundle.toRGBA(image), width, height), 0, 0);
}

function newCanvas(image, name) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  draw(canvas, image);
  return canvas;
}

async function start() {
  bundle = await loadBundle(address, ort, { onProgress });
  const name = new URL(`${address}/manifest.json`, document.baseURI).pathname.split("/").at(-2);
  document.title = element("about").previousElementSibling.textContent = name;
  const response = await fetch(RUNTIME, { method: "HEAD" });
  if (!response.ok) throw new Error(`${RUNTIME} cannot be read: HTTP status ${response.status}; run npm install`);
  const runtime = Number(response.headers.get("content-length"));
  const total = runtime + bundle.size("prior", "decoder");
  const later = `${megabytes(bundle.size("encoder"))} more for pictures of your own`;
  element("about").textContent += ` Download: ${megabytes(total)} (the model and ONNX Runtime), and ${later}.`;
  element("load").textContent = `Load the model (${megabytes(total)})`;
  element("load").disabled = false;
  element("load").onclick = () => attempt(() => load(runtime));
}

async function load(runtime) {
  element("load").disabled = true;
  const files = ["prior", "decoder"].map((graph) => [`${graph}.onnx`, bundle.size(graph)]);
  try {
    await downloading([["runtime", runtime], ...files], async () => {
      const report = (loaded) => onProgress({ file: "runtime", loaded, total: Math.max(runtime, loaded) });
      ort.env.wasm.wasmBinary = await download(RUNTIME, report);
      // Browsers share memory between threads only on pages that are isolated (COOP and COEP).
      if (!crossOriginIsolated) ort.env.wasm.numThreads = 1;
      await bundle.open("prior", "decoder");
    });
  } catch (error) {
    element("load").disabled = false;
    throw error;
  }
  addSliders();
  addAttributes();
  document.querySelector("main").hidden = false;
  element("load").parentElement.hidden = true;
  await showSamples();
  await showWalk();
}

async function showSamples() {
  const { seed, temperature } = numbers("sample");
  const latents = await bundle.latents(bundle.noise({ seed, n: ROWS, temperature }));
  const images = await bundle.decode(latents);
  const tiles = images.map((image, row) => {
    const button = document.createElement("button");
    button.title = `Seed ${seed}, row ${row}`;
    button.append(newCanvas(image, button.title));
    button.onclick = () => attempt(() => choose(latents[row], button.title));
    return button;
  });
  element("tiles").replaceChildren(...tiles);
  await choose(latents[0], `Seed ${seed}, row 0`);
}

async function showWalk() {
  const { seed1, row1, seed2, row2, steps, space, path } = numbers("walk");
  let ends = [bundle.noise({ seed: seed1, row: row1 })[0], bundle.noise({ seed: seed2, row: row2 })[0]];
  if (space === "latent") ends = await bundle.latents(ends);
  const images = await bundle.interpolate(ends[0], ends[1], steps, { space, path });
  element("strip").replaceChildren(...images.map((image, i) => newCanvas(image, `Step ${i + 1} of ${steps}`)));
}

async function showPicture(file) {
  const image = bundle.prepare(await readPicture(file));
  draw(element("prepared"), image);
  const [code] = await downloading([["encoder.onnx", bundle.size("encoder")]], () => bundle.encode([image]));
  draw(element("again"), (await bundle.decode([code]))[0]);
  element("pair").hidden = false;
  await choose(code, file.name);
}

/** Make a latent the one that the sliders change. */
async function choose(code, name) {
  [latent, label] = [Float32Array.from(code), name];
  for (const slider of element("sliders").querySelectorAll("input")) slider.value = latent[slider.dataset.dimension];
  element("edit").elements.strength.value = 0;
  await redraw();
}

let drawing = null; // the run that is on its way, so that only the latest position of a slider follows it
let waits = false;

async function redraw() {
  waits = true;
  drawing ??= (async () => {
    try {
      while (waits) {
        waits = false;
        const { attribute, strength } = element("edit").elements;
        const moved = attribute.value ? bundle.moved([latent], attribute.value, [Number(strength.value)]) : [latent];
        element("chosen").textContent = label;
        draw(element("image"), (await bundle.decode(moved))[0]);
      }
    } finally {
      drawing = null;
    }
  })();
  await drawing;
}

function addSliders() {
  const { std, quantile_levels: levels, quantiles } = bundle.manifest.latent;
  const low = quantiles[levels.indexOf(Math.min(...levels))];
  const high = quantiles[levels.indexOf(Math.max(...levels))];
  const widest = std.map((_, i) => i).sort((a, b) => std[b] - std[a]);
  for (const dimension of widest.slice(0, SLIDERS)) {
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", step: "any", min: low[dimension], max: high[dimension] });
    slider.dataset.dimension = dimension;
    slider.oninput = () => {
      latent[dimension] = Number(slider.value);
      attempt(redraw);
    };
    const text = document.createElement("label");
    text.append(`Dimension ${dimension}`, slider);
    element("sliders").append(text);
  }
}

function addAttributes() {
  const { attribute, strength } = element("edit").elements;
  attribute.append(...[...bundle.directions.keys()].map((name) => new Option(name)));
  element("edit").hidden = !bundle.directions.size;
  attribute.oninput = strength.oninput = () => attempt(redraw);
}

/** Return the fields of a form; those that are numbers as numbers. */
function numbers(form) {
  const fields = [...element(form).elements].filter((field) => field.name);
  return Object.fromEntries(fields.map(({ name, type, value }) => [name, type === "number" ? Number(value) : value]));
}

function onSubmit(form, task) {
  element(form).onsubmit = (event) => {
    event.preventDefault();
    attempt(task);
  };
}

onSubmit("sample", showSamples);
onSubmit("walk", showWalk);
onSubmit("edit", redraw);
const drop = element("drop");
drop.ondragover = (event) => {
  event.preventDefault();
  drop.classList.add("over");
};
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) attempt(() => showPicture(file));
};
element("file").oninput = ({ target }) => target.files[0] && attempt(() => showPicture(target.files[0]));
await attempt(start);
