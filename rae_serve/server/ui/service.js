// Requests to the service, and the curl commands that make the same requests.

import { askForKey, notice } from "./elements.js";

const ROOT = new URL("../", document.baseURI).href.replace(/\/$/, "");
const KEY = "rae-serve key";
const FILE_TYPE = "application/octet-stream"; // of any picture: the service looks at the bytes
const TRIES = 8; // how often a request is sent while the service is busy
let asking = null;

export async function getJson(path, signal) {
  return (await request(ROOT + path, { signal })).json();
}

export async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(ROOT + path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

export async function postJson(path, body, signal) {
  return (await post(path, { ...body, format: "json" }, signal)).json();
}

export async function encode(model, file, signal) {
  const path = `/v1/encode?model=${encodeURIComponent(model)}`;
  const response = await request(ROOT + path, { method: "POST", headers: { "Content-Type": FILE_TYPE }, body: file, signal });
  return (await response.json()).latents[0];
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
  return `curl ${authorization()}${quoted(`${ROOT}/v1/models/${encodeURIComponent(model)}/images/${seed}/${row}.png`)} -o image.png`;
}

export function curlOf(path, body, file = "image.png") {
  return `curl ${authorization()}-H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))} ${quoted(ROOT + path)} -o ${file}`;
}

export function curlOfFile(model, file) {
  const address = `${ROOT}/v1/reconstruct?model=${encodeURIComponent(model)}`;
  return `curl ${authorization()}-H ${quoted("Content-Type: " + FILE_TYPE)} --data-binary ${quoted("@" + file.name)} ${quoted(address)} -o image.png`;
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

async function request(address, options) {
  for (let left = TRIES - 1; ; left--) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
    const response = await fetch(address, { ...options, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : new Error("The service does not answer. Is it running?");
    });
    if (response.ok) return response;
    if (response.status === 401) {
      if (key === sessionStorage.getItem(KEY)) { // else another request has asked for a key in the meantime
        asking ??= askForKey(key !== null).finally(() => { asking = null; });
        sessionStorage.setItem(KEY, await asking);
      }
      left = TRIES;
    } else if (left > 0 && response.headers.has("Retry-After")) {
      const seconds = Number(response.headers.get("Retry-After"));
      notice(`The service is busy. Trying again in ${seconds} s …`);
      await pause(seconds, options.signal);
    } else {
      throw Object.assign(new Error(await detailOf(response)), { status: response.status });
    }
  }
}

async function detailOf(response) {
  try {
    return (await response.json()).detail;
  } catch { // the body is no problem document
    return `The service answered ${response.status}.`;
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); });
  });
}
