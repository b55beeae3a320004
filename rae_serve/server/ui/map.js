// The view of the map: codes of images and samples of the prior on the first two principal directions of the latents.

import { advice, area, field, figure, make, offer, select } from "./elements.js";
import { atPoint, endButtons, moved, pathOf, showLatent, UNTOUCHED } from "./point.js";
import { dataUrl, getJson, pathOfModel, postJson } from "./service.js";
import { change, changeLive, state } from "./state.js";

const COLUMNS = 16, ROWS = 12; // of the decoded plane, and the shape of the map
const DRAG = { mouse: 6, touch: 16 }; // pixels; a shorter movement of the pointer is a click or a tap
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };

export function map(model, life) {
  const { latent: { mean, principal }, map: file } = model.manifest;
  const about = "Where the images that the model has seen lie, and those that it makes.";
  if (!file) {
    return { about, update() {}, element: advice("This model has no map yet. This command draws one from labelled pictures; it then appears here:",
      `rae-serve attributes ${pathOf(model)} --data LABELLED_PICTURES`) };
  }
  const [right, up = right.map(() => 0)] = principal.directions, [across, down = 0] = principal.shares;
  const latentAt = ([x, y]) => mean.map((start, i) => start + x * right[i] + y * up[i]);
  const placeOf = (latent) => [right, up].map((direction) => direction.reduce((sum, part, i) => sum + part * (latent[i] - mean[i]), 0));
  let points, view, cells, latent, hovered, pressed;

  const shown = figure("The latent, decoded", life, model.name);
  const drawing = make("div"), mark = make("i"), line = make("div", { class: "way" });
  const plane = make("div", { class: "map", tabIndex: 0, role: "application", "aria-label": "Map. The arrow keys move the point." }, drawing, line, mark);
  const layer = select([["all", "images and prior"], "images", "prior", ["pictures", "the plane, decoded"]], (value) => change({ layer: value }));
  const label = select([], (value) => change({ label: value }));
  const ground = area(plane, life);
  const place = atPoint(model, life, [field("Map of", layer), field("Label", label)], make("div", { class: "split" },
    make("div", { class: "stage" }, shown.element, make("div", { class: "bar" }, ...endButtons(() => latent))),
    make("div", {}, ground.element,
      make("p", { class: "hint" }, "Dots: codes of images. Crosses: samples of the prior. Point at a place to see it, click or tap to take it, drag " +
        `to interpolate. Both directions together hold ${Math.round(100 * (across + down))}\u00a0% of the variance of the codes. The rest is ` +
        "hidden: what lies together here may be far apart."))),
  (base) => {
    latent = moved(model, base);
    look();
  });

  async function load(signal) {
    points ??= await getJson(pathOfModel(model.name, "/map"), signal);
    view ??= viewOf([...points.images, ...points.prior]);
    if (state.layer === "pictures" && !cells) {
      const grid = Array.from({ length: COLUMNS * ROWS }, (_, i) => [(i % COLUMNS) / COLUMNS, Math.floor(i / COLUMNS) / ROWS]);
      const latents = grid.map(([x, y]) => latentAt(view.placeAt(x + 0.5 / COLUMNS, y + 0.5 / ROWS)));
      const { images } = await postJson("/v1/decode", { model: model.name, latents }, signal);
      cells = grid.map(([x, y], i) => make("img", { src: dataUrl(images[i]), alt: "", style: `left:${100 * x}%;top:${100 * y}%` }));
    }
    return draw;
  }

  function draw() {
    const { images, prior, names, labels } = points, chosen = names.indexOf(state.label);
    const single = labels.every((own) => own.length < 2); // else a point would have several colours
    offer(label, [["", single ? "all" : "none"], ...names], names[chosen] ?? "");
    label.parentNode.hidden = !names.length;
    const classes = names.map((name, k) => ({ name, hue: 360 * k / names.length, own: images.filter((_, i) => labels[i]?.includes(k)) }))
      .filter(({ own }, k) => own.length && (chosen < 0 ? single : k === chosen));
    const path = (some, step, look) => `<path ${look} d="${some.map(([x, y]) => `M${x} ${-y}${step}`).join("")}"/>`;
    const dots = (some, look = "") => path(some, `h${view.width / 1e5}`, look), arm = view.width / 200;
    const crosses = path(prior, `m${-arm} 0h${2 * arm}m${-arm} ${-arm}v${2 * arm}`, 'class="prior"');
    const codes = dots(images, names.length ? "" : 'style="stroke:var(--accent)"') + classes.map(({ own, hue }) => dots(own, `style="stroke:hsl(${hue} 70% 50%)"`)).join("");
    const layers = { all: crosses + codes, images: codes, prior: crosses, pictures: "" };
    drawing.innerHTML = view.svg(layers[state.layer]);
    if (state.layer === "pictures") drawing.append(...cells);
    else if (state.layer !== "prior") drawing.append(...classes.map(({ name, own }) => make("b", { style: view.at(middle(own)) }, name)));
    look();
  }

  // Show the picture at the pointer, or else that of the point; and mark where it is.
  function look() {
    if (!latent) return;
    if (view) mark.style.cssText = view.at(placeOf(latent));
    showLatent(shown, model, hovered ? latentAt(hovered) : latent, "map");
  }

  // Follow the pointer; without an event, forget it. A second finger is no pointer of the map's.
  function follow(event) {
    if (event?.isPrimary === false) return;
    hovered = event && view?.placeAt(event.offsetX / plane.clientWidth, event.offsetY / plane.clientHeight);
    if (!event) pressed = null;
    const [from, to] = [pressed?.place, hovered];
    line.innerHTML = from && to ? view.svg(`<path d="M${from[0]} ${-from[1]}L${to[0]} ${-to[1]}"/>`) : "";
    look();
  }
  plane.addEventListener("pointermove", follow);
  plane.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary) return;
    plane.setPointerCapture(event.pointerId);
    follow(event);
    pressed = hovered && { place: hovered, x: event.offsetX, y: event.offsetY };
  });
  plane.addEventListener("pointerup", (event) => {
    if (!pressed || !event.isPrimary) return;
    follow(event);
    const [start, end] = [pressed.place, hovered].map(latentAt), way = Math.hypot(event.offsetX - pressed.x, event.offsetY - pressed.y);
    follow(null);
    if (way > (DRAG[event.pointerType] ?? DRAG.mouse)) change({ view: "interpolate", start: { latent: start }, end: { latent: end }, path: "linear" });
    else change({ ...UNTOUCHED, latent: end });
  });
  for (const type of ["pointerleave", "pointercancel"]) plane.addEventListener(type, () => follow(null));
  plane.addEventListener("keydown", (event) => {
    const step = KEYS[event.key];
    if (!step || !view || !latent) return;
    event.preventDefault();
    changeLive({ ...UNTOUCHED, latent: latentAt(placeOf(latent).map((part, i) => part + step[i] * view.width / 40)) }, "map");
  });

  return {
    about,
    element: place.element,
    update() {
      layer.value = state.layer;
      place.update();
      ground.want(JSON.stringify([state.layer, state.label]), load);
    },
  };
}

// Return what turns places, in units of the latents, into parts of the map's width and height, and back.
function viewOf(points) {
  const [[x, width], [y, height]] = [0, 1].map((i) => points.map((point) => point[i]))
    .map((all) => [Math.min(...all), Math.max(...all)]).map(([least, most]) => [(least + most) / 2, most - least]);
  const wide = 1.1 * Math.max(width, height * COLUMNS / ROWS) || 1, high = wide * ROWS / COLUMNS, left = x - wide / 2, top = y + high / 2;
  return {
    width: wide,
    placeAt: (across, down) => [left + across * wide, top - down * high],
    at: (place) => `left:${100 * (place[0] - left) / wide}%;top:${100 * (top - place[1]) / high}%`,
    svg: (content) => `<svg viewBox="${left} ${-top} ${wide} ${high}" aria-hidden="true">${content}</svg>`,
  };
}

// Return the median of points, coordinate by coordinate.
function middle(points) {
  return [0, 1].map((i) => points.map((point) => point[i]).sort((a, b) => a - b)[points.length >> 1]);
}
