// The view of a single latent, with a slider for each dimension.

import { act, field, figure, integer, make, slider } from "./elements.js";
import { curlOf, latest, picture, post } from "./service.js";

export function parsePoint(text) {
  const [seed, row] = (text ?? "7:0").split(":").map(Number);
  return { seed: seed || 0, index: row || 0 };
}

export async function latentOf(model, point) {
  const body = { model: model.name, start: point, end: point, steps: 1, format: "json" };
  return (await (await post("/v1/interpolate", body)).json()).latents[0];
}

export function explore(place, model, query, go) {
  const { mean, quantiles, active } = model.manifest.latent;
  const low = quantiles[0], high = quantiles[quantiles.length - 1];
  const point = parsePoint(query.point);
  const seed = integer(point.seed), row = integer(point.index, "short");
  const shown = figure("The latent, decoded");
  const sliders = make("div", { class: "sliders" });
  let latent = [...mean];

  const draw = latest(act(async () => {
    const body = { model: model.name, latents: [latent.map((x) => Number(x.toFixed(4)))], format: "png" };
    shown.show(await picture("/v1/decode", body), curlOf("/v1/decode", body));
  }));
  const set = (values) => {
    latent = [...values];
    sliders.replaceChildren(...latent.map((value, i) => slider(
      `Dimension ${active[i]}`, Math.min(low[i], value), Math.max(high[i], value), value,
      (x) => { latent[i] = x; draw(); })));
    draw();
  };
  const drawn = () => mean.map((_, i) => low[i] + Math.random() * (high[i] - low[i]));
  const form = make("form", { class: "bar", onsubmit: (event) => {
    event.preventDefault();
    go("explore", { point: `${seed.value}:${row.value}` });
  } }, field("Seed", seed), field("Row", row), make("button", { class: "primary" }, "Start here"),
    make("button", { type: "button", onclick: () => set(mean) }, "Mean"),
    make("button", { type: "button", onclick: () => set(drawn()) }, "Shuffle"));
  place.append(form, make("div", { class: "split" }, make("div", { class: "stage" }, shown.element), sliders));
  act(async () => set(await latentOf(model, point)))();
}
