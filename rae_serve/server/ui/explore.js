// The view of a single latent, with a slider for each dimension, the widest first.

import { button, figure, make, slider } from "./elements.js";
import { atPoint, moved, pointBar, UNTOUCHED, withStrength } from "./point.js";
import { curlOf, dataUrl, post, postJson } from "./service.js";
import { change, changeLive, state } from "./state.js";

const SHOWN = 8; // sliders that are not folded away
const TICKS = [0.05, 0.25, 0.5, 0.75, 0.95];

export function explore(model, life) {
  const { mean, std, quantiles, quantile_levels: levels, active } = model.manifest.latent;
  const quantile = (level, i) => quantiles[levels.indexOf(level)][i];
  const low = quantiles[0], high = quantiles[quantiles.length - 1];
  const order = mean.map((_, i) => i).sort((a, b) => std[b] - std[a]);
  let base = null, hovered;

  const shown = figure("The latent, decoded", life, model.name);
  const peek = make("div", { class: "peek", "aria-hidden": "true" }, "Point at a slider to see what it does.");
  const sliders = order.map((i) => slider({
    name: `Dimension ${active[i]}`, low: low[i], high: high[i], centre: quantile(0.5, i),
    ticks: TICKS.filter((level) => levels.includes(level)).map((level) => quantile(level, i)),
    onInput: (value) => changeLive({ move: withStrength(state.move, i, value - unmoved()[i]) }, `dimension ${i}`),
    onPeek: () => preview(i),
  }));
  const unmoved = () => moved(model, base).map((value, i) => value - (state.move[i] ?? 0));
  const rest = make("details", { class: "rest" },
    make("summary", { onclick: (event) => {
      event.preventDefault(); // the state opens it
      change({ more: !state.more }, { replace: true });
    } }, `The ${order.length - SHOWN} narrower dimensions`),
    make("div", { class: "sliders" }, ...sliders.slice(SHOWN).map((one) => one.element)));

  // Show what the dimension under the pointer does, from its lowest tick to its highest.
  async function preview(i) {
    if (!base) return;
    const latent = moved(model, base), key = JSON.stringify([i, latent.with(i, 0)]);
    if (key === hovered) return;
    hovered = key;
    const latents = [0, 0.25, 0.5, 0.75, 1].map((t) => latent.with(i, low[i] + t * (high[i] - low[i])));
    try {
      const { images } = await postJson("/v1/decode", { model: model.name, latents }, life);
      if (hovered !== key) return;
      peek.replaceChildren(...images.map((png) => make("img", { src: dataUrl(png), alt: "" })),
        make("span", {}, `Dimension ${active[i]}, lowest to highest`));
    } catch { /* a preview that fails is left out; the picture itself says what is wrong */ }
  }

  const bar = pointBar(
    button("Mean", () => change({ ...UNTOUCHED, latent: mean })),
    button("Reset all", () => change({ edit: {}, move: {} })));
  const here = () => state.latent || Object.keys(state.edit).length || Object.keys(state.move).length
    ? { latent: moved(model, base) } : { seed: state.seed, row: state.row };
  const place = atPoint(model, life, make("div", { class: "split" },
    make("div", { class: "stage" }, shown.element, make("div", { class: "bar" },
      button("Interpolate from", () => change({ view: "interpolate", start: here() })),
      button("Interpolate to", () => change({ view: "interpolate", end: here() }))), peek),
    make("div", {},
      make("div", { class: "sliders" }, ...sliders.slice(0, SHOWN).map((one) => one.element)),
      ...(order.length > SHOWN ? [rest] : []),
      make("p", { class: "hint" }, "Ticks: 5, 25, 50, 75 and 95 % of the training images lie below."))),
  (found, group) => {
    base = found;
    const latent = moved(model, base), home = unmoved();
    sliders.forEach((one, place) => one.set(latent[order[place]], home[order[place]]));
    const body = { model: model.name, latents: [latent] };
    shown.want(JSON.stringify(latent), async (signal) => (await post("/v1/decode", body, signal)).blob(), curlOf("/v1/decode", body), group);
  });
  return {
    about: "One picture, and what each dimension of its latent does to it.",
    element: make("div", {}, bar.element, place.element),
    update() {
      rest.open = state.more;
      bar.update();
      place.update();
    },
  };
}
