// The models of the service. They may change while the page is open.

import { getJson, pathOfModel } from "./service.js";
import { state } from "./state.js";

export const catalog = { models: null, preset: "" };
const details = new Map();

// Return a model with its manifest.
export async function detail(name, signal) {
  if (!details.has(name)) details.set(name, await getJson(pathOfModel(name), signal));
  return details.get(name);
}

// Ask for the models again, and return whether anything that the page shows has changed.
export async function refresh() {
  const before = JSON.stringify(catalog);
  try {
    const { models, default: preset } = await getJson("/v1/models");
    Object.assign(catalog, { models, preset });
  } catch (error) {
    if (error.status !== 404) throw error;
    Object.assign(catalog, { models: [], preset: "" });
  }
  let changed = JSON.stringify(catalog) !== before;
  for (const [name, known] of details) {
    // A manifest may get attributes while the digest stays. Of a model that is not shown, the manifest is asked for later.
    const shown = [state.model, state.beside].includes(name) && catalog.models.some((model) => model.name === name);
    if (!shown) {
      details.delete(name);
      continue;
    }
    const now = await getJson(pathOfModel(name));
    if (JSON.stringify(now) === JSON.stringify(known)) continue;
    details.set(name, now);
    changed = true;
  }
  return changed;
}
