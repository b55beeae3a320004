// The point that Explore and Edit start from: a row of a seed, the mean, or a picture of the user's own.

import { detail } from "./catalog.js";
import { area, button, field, integer, make, put } from "./elements.js";
import { fit } from "./scale.js";
import { curlOf, curlOfRow, latentOf, postBlob, postFile, quoted } from "./service.js";
import { change, files, state } from "./state.js";

// What takes back all moves of a point; and what leads back to the seed.
export const RESET = { edit: {}, along: {}, move: {} };
export const UNTOUCHED = { latent: null, picture: "", ...RESET };

export function temperatureField() {
  return make("input", { type: "number", min: 0, max: 10, step: 0.05, required: true, class: "short" });
}

// Make a form for the seed and what else is given, as [name, input] by the key of the state; and add more controls.
export function seedForm(others, ...more) {
  const fields = Object.entries({ seed: ["Seed", integer()], ...others });
  const element = make("form", { class: "bar", onsubmit: (event) => {
    event.preventDefault();
    change({ ...UNTOUCHED, ...Object.fromEntries(fields.map(([key, [, input]]) => [key, Number(input.value)])) });
  } }, ...fields.map(([, [name, input]]) => field(name, input)), make("button", { class: "primary" }, "Show"),
    button("Random", () => change({ ...UNTOUCHED, seed: Math.floor(Math.random() * 1e9), row: 0, from: 0 })), ...more);
  return {
    element,
    update() {
      for (const [key, [, input]] of fields) put(input, state[key]);
    },
  };
}

// Make a button that lets the user choose a picture file.
export function chooser(text, take, name = text) {
  const input = make("input", { type: "file", accept: "image/*", class: "hidden", "aria-label": name,
    onchange: () => { if (input.files[0]) take(input.files[0]); input.value = ""; } });
  return make("label", { class: "button file" }, text, input);
}

export function takeDropped(event, take) {
  event.preventDefault(); // else the browser would leave the page
  event.stopPropagation();
  document.body.classList.remove("over");
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
}

// Make fields for the point, and below an area that waits for its latent and then calls `draw(base, group)` at every change
// of the state. A service that is slow never shows one point's answer at another point.
export function atPoint(model, life, buttons, content, draw) {
  let base, loaded;
  const form = seedForm({ row: ["Row", integer(0, undefined, "short")], temperature: ["Temperature", temperatureField()] }, ...buttons);
  const place = area(content, life);
  return {
    element: make("div", {}, form.element, place.element),
    update() {
      form.update();
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

// Encode a picture of the user's own.
export async function encoded(model, file, signal) {
  try {
    return (await postFile("json", "/v1/encode", model.name, file, signal)).latents[0];
  } catch (error) {
    throw error.status ? new Error(`“${file.name}” ${error.message.replace(/^body: /, "cannot be used: it ")}.`) : error;
  }
}

// Show the image of a row of a seed in a figure, at the temperature of the state.
export function showRow(shown, model, seed, row) {
  const { temperature } = state, body = { model, seed, offset: row, temperature };
  const load = async (signal) => {
    fit(shown.element, (await detail(model, signal)).manifest.image); // the page may be fit to the images of another model
    return postBlob("/v1/sample", body, signal);
  };
  shown.want(JSON.stringify(body), load, curlOfRow(model, { seed, temperature }, row));
}

// Show the image of a latent in a figure.
export function showLatent(shown, { name: model }, latent, group, curl) {
  const body = { model, latents: [latent] };
  shown.want(JSON.stringify([body, group]), (signal) => postBlob("/v1/decode", body, signal), curl || curlOf("/v1/decode", body), group);
}

// Return a latent with the edits and the moves of the state.
export function moved(model, base) {
  const { attributes, latent: { principal } } = model.manifest;
  const steps = [
    ...Object.entries(state.edit).map(([name, strength]) => [attributes[name]?.direction, strength]),
    ...Object.entries(state.along).map(([number, distance]) => [principal?.directions[number - 1], distance]),
  ].filter(([direction]) => direction);
  return base.map((start, i) => steps.reduce((sum, [direction, by]) => sum + by * direction[i], start + (state.move[i] ?? 0)));
}

// Make the buttons that take the point as an end of an interpolation. `latent()` is the point, moved; without it, the row.
export function endButtons(latent) {
  const untouched = () => !latent || (!state.latent && !Object.keys(RESET).some((key) => Object.keys(state[key]).length));
  const here = () => (untouched() ? { seed: state.seed, row: state.row } : { latent: latent() });
  return Object.entries({ from: "start", to: "end" }).map(([word, key]) => button(`Interpolate ${word}`,
    () => change({ view: "interpolate", open: false, [key]: here() })));
}

// Return the path of a model's bundle, as a command names it.
export function pathOf({ name }) {
  return `exported/${/^[\w.-]+$/.test(name) ? name : quoted(name)}`;
}

// Return a record of strengths with one more; 0 takes the name out.
export function withStrength(strengths, name, value) {
  const { [name]: old, ...others } = strengths;
  const rounded = Number(value.toFixed(4));
  return rounded === 0 ? others : { ...others, [name]: rounded };
}
