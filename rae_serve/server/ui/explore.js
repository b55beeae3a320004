// The view of a single latent, with a slider for each principal direction, or else for each dimension, the widest first.

import { button, figure, make, slider } from "./elements.js";
import { atPoint, endButtons, moved, RESET, showLatent, UNTOUCHED, withStrength } from "./point.js";
import { dataUrl, postJson } from "./service.js";
import { change, changeLive, state } from "./state.js";

const SHOWN = 8; // sliders that are not folded away
const TICKS = [0.05, 0.25, 0.5, 0.75, 0.95];

// Return the ways in which a latent can be moved. `at` returns the place of a latent on an axis, `to` the latent at a place;
// `key` and `id` say where the state keeps the move.
function axesOf({ mean, std, quantiles, prior_quantiles: prior, active, principal }) {
  const directions = (principal?.directions ?? []).map((direction, k) => {
    const at = (latent) => direction.reduce((sum, part, i) => sum + part * (latent[i] - mean[i]), 0);
    return {
      name: `Direction ${k + 1} (${percent(principal.shares[k])})`, key: "along", id: k + 1,
      quantiles: principal.prior_quantiles.map((values) => values[k]), at,
      to: (latent, value) => latent.map((start, i) => start + (value - at(latent)) * direction[i]),
    };
  });
  const order = mean.map((_, i) => i).sort((a, b) => std[b] - std[a]);
  const dimensions = order.map((i) => ({
    name: `Dimension ${active[i]}`, key: "move", id: i, quantiles: (prior ?? quantiles).map((values) => values[i]),
    at: (latent) => latent[i], to: (latent, value) => latent.with(i, value),
  }));
  return [...directions, ...dimensions];
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

export function explore(model, life) {
  const { latent: space } = model.manifest, { mean, dim, quantile_levels: levels, principal } = space;
  const axes = axesOf(space), count = principal ? axes.length - dim : SHOWN;
  let base = null, hovered;

  const shown = figure("The latent, decoded", life, model.name);
  const peek = make("div", { class: "peek", "aria-hidden": "true" }, "Point at a slider to see what it does.");
  const home = ({ key, id, at }) => at(moved(model, base)) - (state[key][id] ?? 0);
  const sliders = axes.map((axis) => slider({
    name: axis.name, low: axis.quantiles[0], high: axis.quantiles.at(-1), centre: axis.quantiles[levels.indexOf(0.5)],
    ticks: TICKS.filter((level) => levels.includes(level)).map((level) => axis.quantiles[levels.indexOf(level)]),
    onInput: (value) => changeLive({ [axis.key]: withStrength(state[axis.key], axis.id, value - home(axis)) }, axis.name),
    onPeek: () => preview(axis),
  }));
  const group = (some) => make("div", { class: "sliders" }, ...some.map((one) => one.element));
  const rest = make("details", { class: "rest", ontoggle: () => { if (rest.open !== state.more) change({ more: rest.open }, { replace: true }); } },
    make("summary", {}, principal ? `The ${dim} dimensions one by one` : `The ${axes.length - count} narrower dimensions`), group(sliders.slice(count)));

  // Show what the axis under the pointer does, from its lowest tick to its highest.
  async function preview({ name, quantiles, to }) {
    if (!base) return;
    const low = quantiles[0], high = quantiles.at(-1), latent = moved(model, base);
    const latents = [0, 0.25, 0.5, 0.75, 1].map((t) => to(latent, low + t * (high - low))), key = JSON.stringify(latents);
    if (key === hovered) return;
    hovered = key;
    try {
      const { images } = await postJson("/v1/decode", { model: model.name, latents }, life);
      if (hovered !== key) return;
      peek.replaceChildren(...images.map((png) => make("img", { src: dataUrl(png), alt: "" })),
        make("span", {}, `${name}, lowest to highest`));
    } catch { /* a preview that fails is left out; the picture itself says what is wrong */ }
  }

  const buttons = [button("Mean", () => change({ ...UNTOUCHED, latent: mean })), button("Reset all", () => change(RESET))];
  const place = atPoint(model, life, buttons, make("div", { class: "split" },
    make("div", { class: "stage" }, shown.element, make("div", { class: "bar" }, ...endButtons(() => moved(model, base))), peek),
    make("div", {},
      group(sliders.slice(0, count)),
      make("p", { class: "hint" }, (principal ? `Along these directions lie ${percent(principal.shares.reduce((a, b) => a + b))} of the variance of the codes of images. ` : "") +
        `Ticks: 5, 25, 50, 75 and 95 % of the ${space.prior_quantiles ? "prior’s samples" : "training images"} lie below.`),
      ...(axes.length > count ? [rest] : []))),
  (found, group) => {
    base = found;
    const latent = moved(model, base);
    sliders.forEach((one, i) => one.set(axes[i].at(latent), home(axes[i])));
    showLatent(shown, model, latent, group);
  });
  return {
    about: `One picture, and what each ${principal ? "direction" : "dimension"} of its latent does to it.`,
    element: place.element,
    update() {
      rest.open = state.more;
      place.update();
    },
  };
}
