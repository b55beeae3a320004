// The view for editing: take a picture of the user's own or a row of a seed, and move it along attributes.

import { advice, button, figure, make, slider } from "./elements.js";
import { atPoint, chooser, moved, pathOf, RESET, showLatent, UNTOUCHED, withStrength } from "./point.js";
import { curlOfFile, postFile } from "./service.js";
import { change, changeLive, files, state } from "./state.js";

const LIMIT = 2; // the largest strength; 1 is the distance between the images with an attribute and those without

// Start from a picture file, in this view.
export function takeFile(file) {
  const id = Math.random().toString(36).slice(2, 10);
  files.set(id, file);
  change({ ...UNTOUCHED, view: "edit", picture: id, open: false });
}

export function edit(model, life) {
  const whole = make("img", { alt: "Your picture", onload: () => URL.revokeObjectURL(whole.src), onerror: () => { own.hidden = true; } });
  const own = make("figure", { class: "own", hidden: true }, make("div", { class: "frame" }, whole), make("figcaption", {}, "Your picture"));
  const seen = figure("As the model sees it", life, `${model.name}-input`);
  const before = figure("Start", life, `${model.name}-start`), after = figure("Edited", life, `${model.name}-edited`);
  const attributes = Object.entries(model.manifest.attributes);
  const sliders = attributes.map(([name, { opposite }]) => slider({
    name, opposite, low: -LIMIT, high: LIMIT,
    onInput: (strength) => changeLive({ edit: withStrength(state.edit, name, strength) }, `attribute ${name}`),
  }));
  seen.element.hidden = true;
  let file;
  const buttons = [button("Reset all", () => change(RESET)), chooser("Your picture: choose, drop or paste", takeFile)];
  const place = atPoint(model, life, buttons, make("div", { class: "edit" },
    make("div", { class: "trio" }, own, seen.element, before.element, after.element),
    make("div", {}, make("h3", {}, "Attributes"), attributes.length ? make("div", { class: "sliders" }, ...sliders.map((one) => one.element)) : advice(
      "This model has no attributes yet. Mark pictures in the gallery to make one, or let this command find some in labelled pictures. They then appear here:",
      `rae-serve attributes ${pathOf(model)} --data LABELLED_PICTURES`))),
  (base, group) => {
    if (file !== files.get(state.picture)) showOwn(files.get(state.picture));
    seen.element.hidden = !file;
    if (file) {
      seen.want(state.picture, (signal) => postFile("blob", "/v1/prepare", model.name, file, signal), curlOfFile("/v1/prepare", model.name, file));
    }
    before.name(file ? "Reconstructed" : "Start");
    sliders.forEach((one, i) => one.set(state.edit[attributes[i][0]] ?? 0));
    showLatent(before, model, base, group, file && curlOfFile("/v1/reconstruct", model.name, file));
    showLatent(after, model, moved(model, base), group);
  });
  // Show the file whole. A kind of picture that the browser does not know, such as TIFF, is left out.
  function showOwn(chosen) {
    file = chosen;
    own.hidden = !file;
    if (file) whole.src = URL.createObjectURL(file);
  }
  return { about: "Start from a picture, yours or the model’s, and give it more or less of an attribute.", ...place };
}
