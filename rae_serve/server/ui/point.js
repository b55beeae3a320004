// The point that Explore and Edit start from: a row of a seed, the mean, or a picture of the user's own.

import { area, button, field, integer, make, put } from "./elements.js";
import { encode, latentOf } from "./service.js";
import { change, files, state } from "./state.js";

// What leads back to the seed, without anything that was made of it.
export const UNTOUCHED = { latent: null, picture: "", edit: {}, move: {} };

export function randomSeed() {
  return Math.floor(Math.random() * 1e9);
}

export function temperatureField() {
  return make("input", { type: "number", min: 0, max: 10, step: 0.05, required: true, class: "short" });
}

// Make the fields that choose a row of a seed.
export function pointBar(...more) {
  const seed = integer(), row = integer(0, undefined, "short"), temperature = temperatureField();
  const element = make("form", { class: "bar", onsubmit: (event) => {
    event.preventDefault();
    change({ ...UNTOUCHED, seed: Number(seed.value), row: Number(row.value), temperature: Number(temperature.value) });
  } }, field("Seed", seed), field("Row", row), field("Temperature", temperature), make("button", { class: "primary" }, "Show"),
    button("Random", () => change({ ...UNTOUCHED, seed: randomSeed(), row: 0, from: 0 })), ...more);
  return {
    element,
    update() {
      put(seed, state.seed);
      put(row, state.row);
      put(temperature, state.temperature);
    },
  };
}

// Make an area that waits for the latent of the point, and then calls `draw(base, group)` at every change of the state.
// A service that is slow never shows one point's answer at another point.
export function atPoint(model, life, content, draw) {
  let base, loaded;
  const place = area(content, life);
  return {
    element: place.element,
    update() {
      const { seed, row, temperature, picture, latent } = state, file = files.get(picture);
      const key = JSON.stringify(file ? picture : latent ?? [seed, row, temperature]);
      place.want(key, async (signal) => {
        const found = state.latent ?? await (file ? encoded(model, file, signal) : latentOf(model.name, state, signal));
        return () => {
          base = found;
          loaded = key;
          if (file && !state.latent) change({ latent: found }, { replace: true });
          else draw(base, key);
        };
      });
      if (loaded === key) draw(base, key);
    },
  };
}

async function encoded(model, file, signal) {
  try {
    return await encode(model.name, file, signal);
  } catch (error) {
    throw error.status ? new Error(`“${file.name}” ${error.message.replace(/^body: /, "cannot be used: it ")}.`) : error;
  }
}

// Return a latent with the edits and the moves of the state.
export function moved(model, base) {
  const { attributes } = model.manifest;
  const edits = Object.entries(state.edit).filter(([name]) => attributes[name]);
  return base.map((start, i) => edits.reduce(
    (sum, [name, strength]) => sum + strength * attributes[name].direction[i], start + (state.move[i] ?? 0)));
}

// Return a record of strengths with one more; 0 takes the name out.
export function withStrength(strengths, name, value) {
  const { [name]: old, ...others } = strengths;
  const rounded = Number(value.toFixed(4));
  return rounded === 0 ? others : { ...others, [name]: rounded };
}
