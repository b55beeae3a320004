// The view for editing: reconstruct a picture of the user's own, and move a latent along attributes.

import { act, field, figure, integer, make, slider } from "./elements.js";
import { latentOf, parsePoint } from "./explore.js";
import { curlOf, curlOfFile, latest, picture, postFile } from "./service.js";

const LIMIT = 2; // the largest strength; 1 is the distance between the images with an attribute and those without

export function edit(place, model, query, go) {
  const attributes = Object.entries(model.manifest.attributes);
  const own = figure("Your picture"), again = figure("Reconstructed"), shown = figure("Edited");
  const strengths = {};
  let latent = null;

  const draw = latest(act(async () => {
    const moved = latent.map((x, i) =>
      attributes.reduce((sum, [name, { direction }]) => sum + (strengths[name] ?? 0) * direction[i], x));
    const body = { model: model.name, latents: [moved.map((x) => Number(x.toFixed(4)))], format: "png" };
    shown.show(await picture("/v1/decode", body), curlOf("/v1/decode", body));
  }));
  const sliders = make("div", { class: "sliders" });
  const start = (from) => {
    latent = from;
    for (const name of Object.keys(strengths)) delete strengths[name];
    sliders.replaceChildren(...attributes.map(([name, { opposite }]) =>
      slider(name, -LIMIT, LIMIT, 0, (x) => { strengths[name] = x; draw(); }, opposite)));
    draw();
  };
  const take = act(async (file) => {
    const model_ = "?model=" + encodeURIComponent(model.name);
    own.show(URL.createObjectURL(file), curlOfFile("/v1/encode" + model_, file));
    const reconstructed = await (await postFile("/v1/reconstruct" + model_, file)).blob();
    again.show(URL.createObjectURL(reconstructed), curlOfFile("/v1/reconstruct" + model_, file));
    start((await (await postFile("/v1/encode" + model_, file)).json()).latents[0]);
  });

  const point = parsePoint(query.point);
  const seed = integer(point.seed), row = integer(point.index, "short");
  const form = make("form", { class: "bar", onsubmit: (event) => {
    event.preventDefault();
    go("edit", { point: `${seed.value}:${row.value}` });
  } }, field("Seed", seed), field("Row", row), make("button", { class: "primary" }, "Use this"));
  const none = "This model has no attributes. To add some from labelled pictures, run: rae-serve attributes";
  place.append(dropZone(take), form,
    make("div", { class: "split" },
      make("div", { class: "stage" }, shown.element),
      make("div", {}, make("h2", {}, "Attributes"), attributes.length ? sliders : make("p", {}, none))),
    make("div", { class: "ends" }, own.element, again.element));
  act(async () => start(await latentOf(model, point)))();
}

function dropZone(take) {
  const input = make("input", { type: "file", accept: "image/*", onchange: () => input.files[0] && take(input.files[0]) });
  input.setAttribute("aria-label", "A picture file");
  const zone = make("div", { class: "drop" }, "Drop a picture here, or choose one", input);
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  return zone;
}
