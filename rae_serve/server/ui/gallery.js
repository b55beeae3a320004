// The view of the images of a seed, each with its own address.

import { act, copy, field, integer, make } from "./elements.js";
import { curlOfAddress, imageAddress, load } from "./service.js";

const PAGE = 48;

export function gallery(place, model, query, go) {
  const seed = integer(query.seed ?? 7), from = integer(query.from ?? 0, "short");
  const move = (changes) => go("gallery", { seed: seed.value, from: from.value, ...changes });
  const form = make("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); move({}); } },
    field("Seed", seed), field("From row", from),
    make("button", { class: "primary" }, "Show"),
    make("button", { type: "button", onclick: () => move({ seed: Math.floor(Math.random() * 1e9), from: 0 }) }, "Random seed"),
    make("button", { type: "button", onclick: () => move({ from: Math.max(0, Number(from.value) - PAGE) }) }, "← Back"),
    make("button", { type: "button", onclick: () => move({ from: Number(from.value) + PAGE }) }, "More →"));
  const tiles = make("div", { class: "tiles" });
  for (let i = 0; i < PAGE; i++) tiles.append(tile(model, Number(seed.value), Number(from.value) + i, go));
  tiles.addEventListener("keydown", withArrows(tiles));
  place.append(form, tiles);
  if (query.row !== undefined) details(model, Number(seed.value), Number(query.row), go);
}

function tile(model, seed, row, go) {
  const image = make("img", { alt: `Seed ${seed}, row ${row}`, loading: "lazy" });
  act(load)(image, imageAddress(model.name, seed, row));
  return make("button", { type: "button", title: image.alt, onclick: () => details(model, seed, row, go) }, image);
}

function details(model, seed, row, go) {
  const address = imageAddress(model.name, seed, row);
  const permalink = `${location.href.split("#")[0]}#gallery?${new URLSearchParams({ model: model.name, seed, row })}`;
  const point = `${seed}:${row}`;
  const leave = (view, query) => { dialog.close(); go(view, query); };
  const button = (text, onclick) => make("button", { type: "button", onclick }, text);
  const image = make("img", { alt: `Seed ${seed}, row ${row}` }), open = make("a", {}, "Open");
  act(async () => { await load(image, address); open.href = image.src; })();
  const dialog = make("dialog", { "aria-label": image.alt },
    make("figure", { class: "large" }, image, make("figcaption", {}, image.alt, open)),
    make("div", { class: "bar" },
      button("Copy curl", () => copy(curlOfAddress(address))),
      button("Copy permalink", () => copy(permalink)),
      button("Explore", () => leave("explore", { point })),
      button("Edit", () => leave("edit", { point })),
      button("Interpolate from", () => leave("interpolate", { start: point })),
      button("Interpolate to", () => leave("interpolate", { end: point })),
      button("Close", () => dialog.close())));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
}

function withArrows(tiles) {
  return (event) => {
    const all = [...tiles.children], at = all.indexOf(document.activeElement);
    const columns = getComputedStyle(tiles).gridTemplateColumns.split(" ").length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (at < 0 || !step || !all[at + step]) return;
    event.preventDefault();
    all[at + step].focus();
  };
}
