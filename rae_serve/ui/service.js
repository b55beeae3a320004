// The service as the page sees it: requests, and the curl that makes the same.

const ROOT = new URL("../", document.baseURI).href.replace(/\/$/, "");

export async function getJson(path) {
  return (await checked(await fetch(ROOT + path))).json();
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return checked(await fetch(ROOT + path, { method: "POST", headers, body: JSON.stringify(body) }));
}

export async function postFile(path, file) {
  const headers = { "Content-Type": file.type || "application/octet-stream" };
  return checked(await fetch(ROOT + path, { method: "POST", headers, body: file }));
}

export async function picture(path, body) {
  return URL.createObjectURL(await (await post(path, body)).blob());
}

export function imageAddress(model, seed, row) {
  return `${ROOT}/v1/models/${encodeURIComponent(model)}/images/${seed}/${row}.png`;
}

export function curlOfAddress(address) {
  return `curl ${quoted(address)} -o image.png`;
}

export function curlOf(path, body, file = "image.png") {
  return `curl -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))} ${quoted(ROOT + path)} -o ${file}`;
}

export function curlOfFile(path, file) {
  const kind = file.type || "application/octet-stream";
  return `curl -H ${quoted("Content-Type: " + kind)} --data-binary ${quoted("@" + file.name)} ${quoted(ROOT + path)} -o image.png`;
}

// A function that runs `work` with the last arguments it was called with, one run at a time.
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

async function checked(response) {
  if (response.ok) return response;
  let detail = `the service answered ${response.status}`;
  try { detail = (await response.json()).detail; } catch { /* it was no problem document */ }
  throw new Error(detail);
}
