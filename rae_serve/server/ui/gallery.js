// The view of the rows of a seed, of one model or of two side by side.

import { area, button, copyButton, field, figure, integer, make, put, saver, select, slider } from "./elements.js";
import { catalog, detail } from "./catalog.js";
import { randomSeed, UNTOUCHED } from "./point.js";
import { curlOfRow, dataUrl, post, postJson } from "./service.js";
import { change, changeLive, linkTo, state } from "./state.js";
import { fit } from "./scale.js";

const PAGE = 48, HALF = 24; // images of one model, and of each of two; both fill whole rows of 12, 8, 6 and 4

export function gallery(model, life) {
  const seed = integer(0, undefined, "seed"), from = integer(0, undefined, "short"), size = () => (state.beside ? HALF : PAGE);
  const temperature = slider({
    name: "Temperature", low: 0, high: 2, centre: 1,
    onInput: (value) => changeLive({ temperature: Math.round(20 * value) / 20 }, "temperature"),
  });
  const beside = select([["", "one model"]]);
  beside.addEventListener("change", () => change({ beside: beside.value }));
  const form = make("form", { class: "bar", onsubmit: (event) => {
    event.preventDefault();
    change({ ...UNTOUCHED, seed: Number(seed.value), from: Number(from.value) });
  } }, field("Seed", seed), field("From row", from), make("button", { class: "primary" }, "Show"),
    button("Random", () => change({ ...UNTOUCHED, seed: randomSeed(), row: 0, from: 0 })),
    button("← Back", () => change({ from: Math.max(0, state.from - size()) })),
    button("More →", () => change({ from: state.from + size() })),
    temperature.element, field("Beside", beside), saver(() => pageFiles(model)));
  const sheets = make("div", { class: "sheets" }), first = sheet(model, life);
  const dialog = details(model, life);
  let second = null;
  sheets.append(first.element);

  return {
    about: "Each picture is a row of a seed. The same seed and row always make the same picture.",
    element: make("div", {}, form, sheets, dialog.element),
    update() {
      put(seed, state.seed);
      put(from, state.from);
      temperature.set(state.temperature);
      const others = catalog.models.filter(({ name }) => name !== model.name);
      beside.replaceChildren(make("option", { value: "" }, "one model"), ...others.map(({ name }) => make("option", { value: name }, name)));
      const known = others.some(({ name }) => name === state.beside);
      beside.value = known ? state.beside : "";
      beside.disabled = !others.length;
      if (second?.name !== state.beside) {
        second?.element.remove();
        second = known ? other(state.beside, life) : null;
        if (second) sheets.append(second.element);
      }
      sheets.classList.toggle("two", known);
      first.update(known ? HALF : PAGE);
      second?.update(HALF);
      dialog.update(known ? state.beside : "");
    },
  };
}

// Make the sheet of the second model, whose manifest has to come first.
function other(name, life) {
  const content = make("div", {}), place = area(content, life, "tall");
  let inner = null;
  place.want(name, async (signal) => {
    const model = await detail(name, signal);
    return () => {
      inner = sheet(model, life);
      content.replaceChildren(inner.element);
      inner.update(HALF);
    };
  });
  return { name, element: place.element, update: (count) => inner?.update(count) };
}

function sheet(model, life) {
  const tiles = make("div", { class: "tiles" }), place = area(tiles, life);
  tiles.addEventListener("keydown", withArrows(tiles));
  return {
    element: make("section", { "aria-label": model.name }, make("h3", {}, model.name), place.element),
    update(count) {
      fit(tiles, model.manifest.image);
      const { seed, from, temperature } = state;
      while (tiles.children.length > count) tiles.lastChild.remove();
      while (tiles.children.length < count) tiles.append(tile());
      const name = (i) => `Seed ${seed}, row ${from + i}`;
      [...tiles.children].forEach((one, i) => { if (one.disabled) one.title = one.firstChild.alt = name(i); });
      const body = { model: model.name, n: count, seed, offset: from, temperature };
      const show = async (signal) => {
        const { images } = await postJson("/v1/sample", body, signal);
        return () => images.forEach((png, i) => {
          const one = tiles.children[i];
          one.title = one.firstChild.alt = name(i);
          one.dataset.row = from + i;
          one.firstChild.src = dataUrl(png);
          one.disabled = false;
        });
      };
      place.want(JSON.stringify(body), show, seed);
    },
  };
}

function tile() {
  const open = () => change({ row: Number(element.dataset.row), open: true }, { entry: { opened: true } });
  const element = button(make("img", { alt: "" }), open, { disabled: true }); // until there is a picture
  return element;
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

function pageFiles(model) {
  const { seed, from, temperature, beside } = state;
  const body = { model: model.name, n: beside ? HALF : PAGE, seed, offset: from, temperature };
  const file = async (format) => (await post("/v1/sample", { ...body, format })).blob();
  const name = `${model.name}-${seed}-${from}`;
  return [["Contact sheet (PNG)", `${name}.png`, () => file("png")], ["Contact sheet (WebP)", `${name}.webp`, () => file("webp")],
    ["PNG files (zip)", `${name}.zip`, () => file("zip")], ["Array (npy)", `${name}.npy`, () => file("npy")]];
}

// Make the dialog of a single row. It is open as long as the address says so.
function details(model, life) {
  const title = make("h2"), pictures = make("div", { class: "pair" });
  let figures = [], names = "";
  const leave = () => (history.state?.opened ? history.back() : change({ open: false }, { replace: true }));
  const step = (by) => {
    const row = Math.max(0, state.row + by), size = state.beside ? HALF : PAGE;
    const from = row < state.from ? Math.max(0, state.from - size) : row >= state.from + size ? state.from + size : state.from;
    change({ row, from }, { replace: true });
  };
  const go = (text, changes) => button(text, () => change({ open: false, ...changes(state) }));
  const dialog = make("dialog", { class: "details", "aria-label": "A picture" },
    make("div", { class: "title" }, title,
      button("←", () => step(-1), { "aria-label": "Previous" }), button("→", () => step(1), { "aria-label": "Next" }),
      button("✕", leave, { "aria-label": "Close" })),
    pictures,
    make("div", { class: "bar" },
      go("Explore", () => ({ ...UNTOUCHED, view: "explore" })),
      go("Edit", () => ({ ...UNTOUCHED, view: "edit" })),
      copyButton("Copy link", () => linkTo(state)),
      go("Interpolate from", ({ seed, row }) => ({ view: "interpolate", start: { seed, row } })),
      go("Interpolate to", ({ seed, row }) => ({ view: "interpolate", end: { seed, row } }))));
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) leave(); });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  return {
    element: dialog,
    update(beside) {
      if (!state.open) {
        if (dialog.open) dialog.close();
        return;
      }
      const shown = [model.name, ...(beside ? [beside] : [])];
      if (names !== String(shown)) {
        names = String(shown);
        figures = shown.map((name) => ({ name, figure: figure("", life, name) }));
        pictures.replaceChildren(...figures.map((one) => one.figure.element));
      }
      const { seed, row, temperature } = state, text = `Seed ${seed}, row ${row}`;
      title.textContent = text;
      dialog.setAttribute("aria-label", text);
      for (const { name, figure: one } of figures) {
        const body = { model: name, seed, offset: row, temperature };
        one.name(beside ? `${text}, ${name}` : text, beside ? name : "");
        one.want(JSON.stringify(body), async (signal) => (await post("/v1/sample", body, signal)).blob(), curlOfRow(name, state, row));
      }
      if (!dialog.open) dialog.showModal();
    },
  };
}
