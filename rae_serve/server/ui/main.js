// Show the view and the model that the state names.

import { about } from "./about.js";
import { catalog, detail, refresh } from "./catalog.js";
import { advice, button, copy, make, notice, offer } from "./elements.js";
import { edit, takeFile } from "./edit.js";
import { explore } from "./explore.js";
import { gallery } from "./gallery.js";
import { interpolate } from "./interpolate.js";
import { map } from "./map.js";
import { takeDropped } from "./point.js";
import { fit } from "./scale.js";
import { addressOf, change, faults, linkTo, onChange, state } from "./state.js";

const SHOW = { gallery, map, explore, interpolate, edit, about };
const ASK_AGAIN_MS = 10_000; // how often a page that is looked at asks for the models
const place = document.getElementById("view"), choice = document.getElementById("model");
const links = document.querySelectorAll("a[data-view]"), pixels = document.getElementById("pixels");
let mounted = null; // the view on the page, with the model that it was made for
let turn = new AbortController(); // of the render that is running; a newer one ends it
let lost = false; // whether the service did not answer when it was last asked for the models

async function render() {
  turn.abort();
  const { signal } = turn = new AbortController();
  for (const link of links) {
    const view = link.dataset.view;
    link.href = addressOf({ ...state, view, open: false });
    if (view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  pixels.value = state.pixels;
  if (!catalog.models) return;
  const names = catalog.models.map(({ name }) => name), wanted = state.model || catalog.preset;
  offer(choice, names.includes(wanted) ? names : [wanted, ...names], wanted);
  if (faults.length) return say(faults.map(({ what }) => what), button("Go on without that", () => change({}, { replace: true })));
  if (!catalog.models.length) return say([], advice("This service has no model yet. These three commands make one; it then appears here by itself.",
    "pip install '.[train]'", "rae-serve train flexae-digits --out runs/digits", "rae-serve export runs/digits --out exported/digits"));
  if (!state.model) return change({ model: catalog.preset }, { replace: true });
  if (!names.includes(state.model)) {
    return say([`There is no model “${state.model}” here.`], ...names.map((name) => button(`Use ${name}`, () => change(forModel(name)))));
  }
  place.setAttribute("aria-busy", "true");
  if (mounted?.model.name !== state.model) mounted?.element.setAttribute("inert", "");
  try {
    const model = await detail(state.model, signal);
    if (signal.aborted) return;
    const { dim } = model.manifest.latent;
    const lengths = [state.latent, state.start.latent, state.end.latent].map((latent) => latent?.length ?? dim);
    if (lengths.every((length) => length === dim)) return show(model);
    say([`The address has a latent of another model: those of “${model.name}” have ${dim} numbers.`],
      button("Go on without that", () => change(forModel(model.name), { replace: true })));
  } catch (error) {
    if (!signal.aborted) say([error.message], button("Retry", render));
  }
}

function show(model) {
  if (mounted?.model !== model || mounted.view !== state.view) {
    const life = unmount(), view = SHOW[state.view](model, life.signal);
    const title = state.view[0].toUpperCase() + state.view.slice(1);
    const element = make("div", {}, make("div", { class: "intro" }, make("h2", {}, title), make("p", {}, view.about)), view.element);
    mounted = { view: state.view, model, life, element, update: view.update };
    place.replaceChildren(element);
    const { image, latent, model: made, training } = model.manifest;
    document.getElementById("facts").textContent =
      `${made.kind} · ${image.width} × ${image.height} · ${latent.dim} latent dimensions · trained on ${training.data}`;
    document.getElementById("unfit").hidden = model.manifest.evaluation?.grade !== "bad";
    document.title = `${title} · ${model.name} · rae-serve`;
  }
  place.setAttribute("aria-busy", "false");
  mounted.element.removeAttribute("inert");
  fit(place, model.manifest.image);
  mounted.update();
}

function unmount() {
  mounted?.life.abort();
  mounted = null;
  return new AbortController();
}

// Show what keeps the page from showing a view, and what can be done about it.
function say(sentences, ...actions) {
  unmount();
  place.setAttribute("aria-busy", "false");
  document.title = "rae-serve";
  document.getElementById("facts").textContent = "";
  place.replaceChildren(make("div", { class: "fault page", role: "alert" },
    ...sentences.map((sentence) => make("p", {}, sentence)), make("div", { class: "bar" }, ...actions)));
}

// What stays when the model changes: a latent means something else to another model.
function forModel(name) {
  const seeded = (end, row) => (end.latent ? { seed: state.seed, row } : end);
  return {
    model: name, beside: state.beside === name ? state.model : state.beside, latent: null, along: {}, move: {}, has: [], lacks: [],
    start: seeded(state.start, 0), end: seeded(state.end, 1),
  };
}

async function askAgain() {
  try {
    if (await refresh() || lost) render();
    if (lost) for (const retry of place.querySelectorAll(".area > .fault:not([hidden]) button")) retry.click();
    lost = false;
  } catch (error) {
    lost = true;
    if (catalog.models) notice(error.message);
    else say([error.message], button("Retry", askAgain));
  }
}

choice.addEventListener("change", () => change(forModel(choice.value)));
pixels.addEventListener("change", () => change({ pixels: pixels.value }));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); place.focus(); });
document.getElementById("link").addEventListener("click", () => copy(linkTo(state)));
addEventListener("focus", askAgain);
setInterval(() => { if (!document.hidden) askAgain(); }, ASK_AGAIN_MS);

// A picture may be dropped or pasted anywhere.
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => takeDropped(event, takeFile));
addEventListener("paste", (event) => { if (event.clipboardData.files[0]) takeFile(event.clipboardData.files[0]); });

onChange(render);
render();
askAgain();
