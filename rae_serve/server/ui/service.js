// Requests to the service, and the curl commands that make the same requests.

import { askForKey, notice } from "./elements.js";

const ROOT = new URL("../", document.baseURI).href.replace(/\/$/, "");
const KEY = "rae-serve key";
const FILE_TYPE = "application/octet-stream"; // of any picture: the service looks at the bytes
const TRIES = 8; // how often a request is sent while the service is busy
const PATIENCE = 10; // seconds; a service that is busy for longer is asked again by the user
let asking = null;

// Return the path of a model, or of something below it.
export function pathOfModel(name, below = "") {
  return `/v1/models/${encodeURIComponent(name)}${below}`;
}

export function getJson(path, signal) {
  return request("json", path, { signal });
}

export function getBlob(path, signal) {
  return request("blob", path, { signal });
}

// Send a body as JSON, and return the response as "json" or as a "blob".
export function post(kind, path, body, signal) {
  return request(kind, path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
}

export function postBlob(path, body, signal) {
  return post("blob", path, body, signal);
}

export function postJson(path, body, signal) {
  return post("json", path, { ...body, format: "json" }, signal);
}

// Send a picture file to a path such as /v1/encode.
export function postFile(kind, path, model, file, signal) {
  return request(kind, pathFor(path, model), { method: "POST", headers: { "Content-Type": FILE_TYPE }, body: file, signal });
}

function pathFor(path, model) {
  return `${path}?model=${encodeURIComponent(model)}`;
}

// Return the latent of a point of the state, without its edits and moves.
export async function latentOf(model, { seed, row, temperature }, signal) {
  const point = { seed, index: row, temperature };
  const body = { model, start: point, end: point, steps: 1 };
  return (await postJson("/v1/interpolate", body, signal)).latents[0];
}

// Return the command that makes the picture of a row of a seed.
export function curlOfRow(model, { seed, temperature }, row) {
  if (temperature !== 1) return curlOf("/v1/sample", { model, seed, offset: row, temperature });
  return `curl ${authorization()}${quoted(ROOT + pathOfModel(model, `/images/${seed}/${row}.png`))} -o image.png`;
}

export function curlOf(path, body, file = "image.png") {
  return `curl ${authorization()}-H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))} ${quoted(ROOT + path)} -o ${file}`;
}

export function curlOfFile(path, model, file) {
  const body = `-H ${quoted("Content-Type: " + FILE_TYPE)} --data-binary ${quoted("@" + file.name)}`;
  return `curl ${authorization()}${body} ${quoted(ROOT + pathFor(path, model))} -o image.png`;
}

export function dataUrl(png) {
  return "data:image/png;base64," + png;
}

export function quoted(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

// Name a shell variable instead of the key, so that the key does not get into the clipboard.
function authorization() {
  return sessionStorage.getItem(KEY) ? '-H "Authorization: Bearer $RAE_SERVE_KEY" ' : "";
}

async function request(kind, path, options) {
  for (let left = TRIES - 1; ; left--) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
    const response = await answerOf(fetch(ROOT + path, { ...options, headers }));
    if (response.ok) return answerOf(response[kind]());
    const seconds = Number(response.headers.get("Retry-After") ?? NaN);
    if (response.status === 401) {
      if (key === sessionStorage.getItem(KEY)) { // else another request has asked for a key in the meantime
        asking ??= askForKey(key !== null).finally(() => { asking = null; });
        sessionStorage.setItem(KEY, await asking);
      }
      left = TRIES;
    } else if (left > 0 && seconds <= PATIENCE) {
      notice(`The service is busy. Trying again in ${seconds} s …`);
      await pause(seconds, options.signal);
    } else {
      throw Object.assign(new Error(await detailOf(response)), { status: response.status });
    }
  }
}

// Wait for a part of a response, and say a failure in words of the user's.
async function answerOf(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(error instanceof SyntaxError
      ? "What answers here is not the service. Is there a proxy or a login between it and this page?"
      : "The service does not answer. Is it running?");
  }
}

async function detailOf(response) {
  const problem = await response.json().catch(() => null);
  return typeof problem?.detail === "string" ? problem.detail : `The service answered ${response.status}.`;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
  });
}
