// Requests to the service, and the curl commands that make the same requests.

import { askForKey } from "./elements.js";

const ROOT = new URL("../", document.baseURI).href.replace(/\/$/, "");

const KEY = "rae-serve key";
let asking = null;

export async function getJson(path) {
  return (await request(ROOT + path)).json();
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return request(ROOT + path, { method: "POST", headers, body: JSON.stringify(body) });
}

export async function postFile(path, file) {
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  return request(ROOT + path, { method: "POST", headers, body: file });
}

export async function picture(path, body) {
  return URL.createObjectURL(await (await post(path, body)).blob());
}

// Show the picture at an address. The browser loads the picture itself, unless the request needs a key.
export async function load(image, address) {
  image.src = sessionStorage.getItem(KEY) ? URL.createObjectURL(await (await request(address)).blob()) : address;
}

export function imageAddress(model, seed, row) {
  return `${ROOT}/v1/models/${encodeURIComponent(model)}/images/${seed}/${row}.png`;
}

export function curlOfAddress(address) {
  return `curl ${authorization()}${quoted(address)} -o image.png`;
}

export function curlOf(path, body, file = "image.png") {
  return `curl ${authorization()}-H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))} ${quoted(ROOT + path)} -o ${file}`;
}

export function curlOfFile(path, file) {
  const kind = file.type || "application/octet-stream";
  return `curl ${authorization()}-H ${quoted("Content-Type: " + kind)} --data-binary ${quoted("@" + file.name)} ${quoted(ROOT + path)} -o image.png`;
}

// Return a function that runs `work` once at a time; of the calls during a run, only the last one is done.
export function latest(work) {
  let waiting = null, running = false;
  return async (...args) => {
    waiting = args;
    if (running) return;
    running = true;
    try {
      while (waiting) {
        const now = waiting;
        waiting = null;
        await work(...now);
      }
    } finally {
      running = false;
    }
  };
}

function quoted(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

// Name a shell variable instead of the key, so that the key does not get into the clipboard.
function authorization() {
  return sessionStorage.getItem(KEY) ? '-H "Authorization: Bearer $RAE_SERVE_KEY" ' : "";
}

async function request(address, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { ...options.headers, Authorization: `Bearer ${key}` } : options.headers;
  const response = await fetch(address, { ...options, headers });
  if (response.status === 401) {
    if (key === sessionStorage.getItem(KEY)) {  // else another request has asked for a key in the meantime
      asking ??= askForKey(key !== null).finally(() => { asking = null; });
      sessionStorage.setItem(KEY, await asking);
    }
    return request(address, options);
  }
  if (response.ok) return response;
  let detail = `the service answered ${response.status}`;
  try { detail = (await response.json()).detail; } catch { /* the body is not a problem document */ }
  throw new Error(detail);
}
