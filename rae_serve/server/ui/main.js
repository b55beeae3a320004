// Show the view and the model that the address names: #VIEW?model=…&….

import { act, make } from "./elements.js";
import { edit } from "./edit.js";
import { explore } from "./explore.js";
import { gallery } from "./gallery.js";
import { interpolate } from "./interpolate.js";
import { getJson } from "./service.js";

const VIEWS = { gallery, explore, interpolate, edit };
const select = document.getElementById("model");
const details = new Map();

function address() {
  const [view, query] = location.hash.slice(1).split("?");
  return { view: VIEWS[view] ? view : "gallery", query: Object.fromEntries(new URLSearchParams(query)) };
}

function go(view, query) {
  const next = `#${view}?${new URLSearchParams({ model: select.value, ...query })}`;
  if (next === location.hash) show();
  else location.hash = next;
}

async function detail(name) {
  if (!details.has(name)) details.set(name, await getJson(`/v1/models/${encodeURIComponent(name)}`));
  return details.get(name);
}

const show = act(async () => {
  const { view, query } = address();
  if (query.model && [...select.options].some((option) => option.value === query.model)) select.value = query.model;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === "#" + view;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const model = await detail(select.value);
  const { image, latent, model: made, training } = model.manifest;
  document.documentElement.style.setProperty("--aspect", `${image.width} / ${image.height}`);
  document.getElementById("facts").textContent =
    `${made.kind} · ${image.height} × ${image.width} · ${latent.dim} latent dimensions · trained on ${training.data}`;
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · ${model.name} · rae-serve`;
  const place = document.getElementById("view");
  place.replaceChildren();
  VIEWS[view](place, model, query, go);
});

act(async () => {
  const { models } = await getJson("/v1/models");
  select.append(...models.map((m) => make("option", { value: m.name, selected: m.default }, m.name)));
  select.addEventListener("change", () => go(address().view, {}));
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => { event.preventDefault(); go(link.hash.slice(1), {}); });
  }
  addEventListener("hashchange", show);
  await show();
})();
