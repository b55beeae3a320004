// The view for editing: take a picture of the user's own or a row of a seed, and move it along attributes.

import { button, copyButton, figure, make, slider } from "./elements.js";
import { atPoint, moved, pointBar, UNTOUCHED, withStrength } from "./point.js";
import { curlOf, curlOfFile, post, quoted } from "./service.js";
import { change, changeLive, files, state } from "./state.js";

const LIMIT = 2; // the largest strength; 1 is the distance between the images with an attribute and those without

// Start from a picture file, in this view.
export function takeFile(file) {
  const id = Math.random().toString(36).slice(2, 10);
  files.set(id, file);
  change({ ...UNTOUCHED, view: "edit", picture: id, open: false });
}

export function edit(model, life) {
  const own = ownPicture(model.manifest.image);
  const before = figure("Start", life, `${model.name}-start`), after = figure("Edited", life, `${model.name}-edited`);
  const attributes = Object.entries(model.manifest.attributes);
  const sliders = attributes.map(([name, { opposite }]) => slider({
    name, opposite, low: -LIMIT, high: LIMIT,
    onInput: (strength) => changeLive({ edit: withStrength(state.edit, name, strength) }, `attribute ${name}`),
  }));
  const bar = pointBar(button("Reset all", () => change({ edit: {}, move: {} })), chooser());
  const place = atPoint(model, life, make("div", {},
    make("div", { class: "trio" }, own.element, before.element, after.element),
    make("h3", {}, "Attributes"),
    attributes.length ? make("div", { class: "sliders" }, ...sliders.map((one) => one.element)) : none(model)),
  (base, group) => {
    const file = files.get(state.picture);
    own.show(file);
    before.name(file ? "Reconstructed" : "Start");
    sliders.forEach((one, i) => one.set(state.edit[attributes[i][0]] ?? 0));
    draw(before, base, group, file && curlOfFile(model.name, file));
    draw(after, moved(model, base), group);
  });
  const draw = (shown, latent, group, curl) => {
    const body = { model: model.name, latents: [latent] };
    shown.want(JSON.stringify([latent, group]), async (signal) => (await post("/v1/decode", body, signal)).blob(),
      curl || curlOf("/v1/decode", body), group);
  };
  return {
    about: "Start from a picture, yours or the model’s, and give it more or less of an attribute.",
    element: make("div", {}, bar.element, place.element),
    update() {
      bar.update();
      place.update();
    },
  };
}

function chooser() {
  const input = make("input", { type: "file", accept: "image/*", class: "hidden", "aria-label": "A picture file",
    onchange: () => { if (input.files[0]) takeFile(input.files[0]); input.value = ""; } });
  return make("label", { class: "button file" }, "Your picture: choose, drop or paste", input);
}

// Make the figure of the user's file, with a frame around the part of it that the model gets.
function ownPicture(preprocessing) {
  const frame = make("div", { class: "crop" }), caption = make("figcaption");
  const image = make("img", { alt: "Your picture" });
  const element = make("figure", { class: "own", hidden: true }, make("div", { class: "whole" }, image, frame), caption);
  let shown;
  image.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    image.parentNode.style.setProperty("--ratio", width / height);
    const box = cropBox(preprocessing, width, height);
    const whole = box.width === width && box.height === height;
    frame.hidden = whole;
    frame.style.cssText = `left:${50 - 50 * box.width / width}%;top:${50 - 50 * box.height / height}%;` +
      `width:${100 * box.width / width}%;height:${100 * box.height / height}%`;
    caption.textContent = whole ? "Your picture" : "Your picture; the model sees what is inside the frame";
  });
  image.addEventListener("error", () => {
    frame.hidden = true;
    if (shown) caption.textContent = `This browser cannot show ${shown.name}, but the service has read it.`;
  });
  return {
    element,
    show(file) {
      if (file === shown) return;
      shown = file;
      if (image.src) URL.revokeObjectURL(image.src);
      element.hidden = !file;
      if (file) image.src = URL.createObjectURL(file);
      else image.removeAttribute("src");
    },
  };
}

// Return the size of the centred part that the service cuts out of an upright picture; see docs/bundle.md.
function cropBox({ crop, width: ours, height: theirs }, width, height) {
  if (crop === "none") return { width, height };
  if (typeof crop === "number" && crop <= Math.min(width, height)) return { width: crop, height: crop };
  const scale = Math.min(width / ours, height / theirs);
  return { width: Math.min(width, ours * scale), height: Math.min(height, theirs * scale) };
}

function none(model) {
  const command = `rae-serve attributes exported/${/^[\w.-]+$/.test(model.name) ? model.name : quoted(model.name)} --data LABELLED_PICTURES`;
  return make("div", {},
    make("p", {}, "This model has no attributes yet. This command finds some in labelled pictures; they then appear here:"),
    make("div", { class: "command" }, make("code", {}, command), copyButton("Copy", () => command)));
}
