// The view of the rows of a seed, of one model or of two side by side.

import { area, button, copyButton, field, figure, integer, make, offer, saver, select, slider } from "./elements.js";
import { catalog, detail } from "./catalog.js";
import { markNext, marking, markOf, showMark } from "./marking.js";
import { endButtons, seedForm, showRow, UNTOUCHED } from "./point.js";
import { dataUrl, postBlob, postJson } from "./service.js";
import { change, changeLive, linkTo, state } from "./state.js";
import { fit } from "./scale.js";

const PAGE = 72, HALF = 36; // images of one model, and of each of two; both fill whole rows at every width

export function gallery(model, life) {
  const size = () => (state.beside ? HALF : PAGE);
  const temperature = slider({
    name: "Temperature", low: 0, high: 2, centre: 1,
    onInput: (value) => changeLive({ temperature: Math.round(20 * value) / 20 }, "temperature"),
  });
  const beside = select([], (name) => change({ beside: name }));
  const mark = button("Mark", () => change({ marking: !state.marking }),
    { "aria-label": "Mark an attribute", title: "Mark pictures that have something, to make an attribute" });
  const form = seedForm({ from: ["From row", integer(0, undefined, "short")] },
    turn("←", "Earlier pictures", () => change({ from: Math.max(0, state.from - size()) })),
    turn("→", "More pictures", () => change({ from: state.from + size() })),
    temperature.element, field("Compare with", beside), mark, saver(() => pageFiles(model)));
  const sheets = make("div", { class: "sheets" }), first = sheet(model.name, life);
  const dialog = details(model, life), panel = marking(model, life);
  let second = null;
  sheets.append(first.element);

  return {
    about: "Each picture is a row of a seed. The same seed and row always make the same picture.",
    element: make("div", {}, form.element, sheets, panel.element, dialog.element),
    update() {
      form.update();
      temperature.set(state.temperature);
      const others = catalog.models.filter(({ name }) => name !== model.name);
      // Marks are of one model.
      const known = !state.marking && others.some(({ name }) => name === state.beside);
      offer(beside, [["", "nothing"], ...others.map(({ name }) => name)], known ? state.beside : "");
      beside.disabled = !others.length || state.marking;
      mark.setAttribute("aria-pressed", state.marking);
      panel.element.hidden = !state.marking;
      if (state.marking) panel.update();
      if ((second?.name ?? "") !== beside.value) {
        second?.element.remove();
        second = known ? sheet(state.beside, life) : null;
        if (second) sheets.append(second.element);
      }
      sheets.classList.toggle("two", known);
      first.update(known ? HALF : PAGE);
      second?.update(HALF);
      dialog.update(known ? state.beside : "");
    },
  };
}

// Make a button that shows a sign, and has a name.
function turn(sign, name, onclick) {
  return button(sign, onclick, { "aria-label": name, title: name });
}

function sheet(name, life) {
  const tiles = make("div", { class: "tiles" }), place = area(tiles, life);
  let model = null; // the manifest of a second model has to come first
  tiles.addEventListener("keydown", withArrows(tiles));
  return {
    name,
    element: make("section", { "aria-label": name }, make("h3", {}, name), place.element),
    update(count) {
      if (model) fit(tiles, model.manifest.image);
      const { seed, from, temperature } = state;
      while (tiles.children.length > count) tiles.lastChild.remove();
      while (tiles.children.length < count) tiles.append(tile());
      const point = (row) => ({ row, mark: markOf(seed, row, temperature), name: `Seed ${seed}, row ${row}` });
      [...tiles.children].forEach((one, i) => {
        if (one.disabled) one.point = point(from + i);
        showMark(one);
      });
      const body = { model: name, n: count, seed, offset: from, temperature };
      const show = async (signal) => {
        if (!model) fit(tiles, (model = await detail(name, signal)).manifest.image);
        const { images } = await postJson("/v1/sample", body, signal);
        return () => images.forEach((png, i) => {
          const one = tiles.children[i];
          one.point = point(from + i);
          showMark(one);
          one.firstChild.src = dataUrl(png);
          one.disabled = false;
        });
      };
      place.want(JSON.stringify(body), show, seed);
    },
  };
}

function tile() {
  const choose = () => {
    const { row, mark } = element.point;
    if (state.marking) markNext(mark);
    else change({ row, open: true }, { entry: { opened: true } });
  };
  const element = button(make("img", { alt: "" }), choose, { disabled: true }); // until there is a picture
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
  const file = (format) => postBlob("/v1/sample", { ...body, format });
  const name = `${model.name}-${seed}-${from}`;
  return [["Contact sheet (PNG)", `${name}.png`, () => file("png")], ["Contact sheet (WebP)", `${name}.webp`, () => file("webp")],
    ["PNG files (zip)", `${name}.zip`, () => file("zip")], ["Array (npy)", `${name}.npy`, () => file("npy")]];
}

// Make the dialog of a single row. It is open as long as the address says so.
function details(model, life) {
  const title = make("h2"), pictures = make("div", { class: "figures" });
  let figures = [], names = "";
  const leave = () => (history.state?.opened ? history.back() : change({ open: false }, { replace: true }));
  const step = (by) => {
    const row = Math.max(0, state.row + by), size = state.beside ? HALF : PAGE;
    const from = row < state.from ? Math.max(0, state.from - size) : row >= state.from + size ? state.from + size : state.from;
    change({ row, from }, { replace: true });
  };
  const go = (text, view) => button(text, () => change({ ...UNTOUCHED, view, open: false }));
  const dialog = make("dialog", { class: "details", "aria-label": "A picture" },
    make("div", { class: "title" }, title,
      turn("←", "Previous", () => step(-1)), turn("→", "Next", () => step(1)), turn("✕", "Close", leave)),
    pictures,
    make("div", { class: "bar" },
      go("Explore", "explore"), go("Edit", "edit"),
      copyButton("Copy link", () => linkTo(state)),
      ...endButtons()));
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog && event.detail < 2) leave(); }); // 2: of the click that opened it
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
      const { seed, row } = state, text = `Seed ${seed}, row ${row}`;
      title.textContent = text;
      dialog.setAttribute("aria-label", text);
      for (const { name, figure: one } of figures) {
        one.name(beside ? `${text}, ${name}` : text, beside ? name : "");
        showRow(one, name, seed, row);
      }
      if (!dialog.open) dialog.showModal();
    },
  };
}
