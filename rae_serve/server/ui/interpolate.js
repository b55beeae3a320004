// The view of the interpolation between two points, as a strip and as an animation.

import { area, button, captioned, field, figure, integer, make, put, select } from "./elements.js";
import { chooser, encoded, showLatent, showRow, takeDropped, temperatureField, UNTOUCHED } from "./point.js";
import { curlOf, dataUrl, postBlob, postJson } from "./service.js";
import { change, state } from "./state.js";

const FRAME_RATE = 25; // images per second; both GIF and WebP can keep it
const FRAMES = 50; // images from start to end

export function interpolate(model, life) {
  const start = end("start", "Start", model, life), finish = end("end", "End", model, life);
  const steps = integer(2, 64, "short"), temperature = temperatureField();
  const space = select(["noise", "latent"], (value) => change({ space: value })), path = select(["spherical", "linear"], (value) => change({ path: value }));
  for (const [key, input] of Object.entries({ steps, temperature })) {
    input.addEventListener("change", () => { if (input.reportValidity()) change({ [key]: Number(input.value) }); });
  }
  const moving = player(model, life), line = strip(model, life);
  const swap = button("⇄ Swap", () => change({ start: state.end, end: state.start }));
  return {
    about: "A way from one picture to another, through the pictures between them.",
    element: make("div", {},
      make("div", { class: "trio" }, start.element, finish.element, make("div", { class: "player" }, moving.element,
        make("div", { class: "bar" }, field("Steps", steps), field("Temperature", temperature), field("Space", space), field("Path", path), swap))),
      line.element),
    update() {
      const point = ({ seed, row, latent }) => latent ? { latent } : { seed, index: row, temperature: state.temperature };
      const moved = state.start.latent || state.end.latent; // and then there is no noise to interpolate between
      const between = {
        model: model.name, start: point(state.start), end: point(state.end), space: moved ? "latent" : state.space, path: state.path,
      };
      put(steps, state.steps);
      put(temperature, state.temperature);
      space.value = between.space;
      space.disabled = Boolean(moved);
      space.title = moved ? "Only rows of a seed have noise" : "";
      path.value = state.path;
      start.update();
      finish.update();
      moving.update({ ...between, steps: FRAMES });
      line.update({ ...between, steps: state.steps });
    },
  };
}

function end(key, title, model, life) {
  const shown = figure(title, life, `${model.name}-${key}`);
  const seed = integer(), row = integer(0, undefined, "short");
  for (const input of [seed, row]) {
    input.addEventListener("change", () => {
      if (input.reportValidity()) change({ [key]: { seed: Number(seed.value), row: Number(row.value) } });
    });
  }
  const note = make("p", { class: "hint", hidden: true }, "A moved latent, or one of your pictures");
  // The figure waits for the latent of the picture, which then is the end.
  const take = (file) => shown.want(file, async (signal) => change({ [key]: { latent: await encoded(model, file, signal) } }));
  return {
    element: make("div", { ondrop: (event) => takeDropped(event, take) }, shown.element,
      make("div", { class: "bar" }, field(`${title} seed`, seed), field(`${title} row`, row)), chooser("Your picture", take, `${title}: your picture`), note),
    update() {
      const { latent, seed: number = state.seed, row: index = state.row } = state[key];
      put(seed, number);
      put(row, index);
      note.hidden = !latent;
      if (latent) showLatent(shown, model, latent);
      else showRow(shown, model.name, number, index);
    },
  };
}

function file(body, format, more = {}) {
  return () => postBlob("/v1/interpolate", { ...body, ...more, format });
}

// Make the strip. A click on one of its pictures explores that latent.
function strip(model, life) {
  const tiles = make("div", { class: "strip" }), place = area(tiles, life);
  let body;
  const files = () => ["png", "webp", "npy"].map((format) => [`Strip (${format})`, `${model.name}-strip.${format}`, file(body, format)]);
  return {
    element: captioned(place.element, "From start to end; choose a picture to explore it", () => curlOf("/v1/interpolate", body, "strip.png"), files),
    update(wanted) {
      body = wanted;
      place.want(JSON.stringify(wanted), async (signal) => {
        const { images, latents } = await postJson("/v1/interpolate", wanted, signal);
        return () => {
          tiles.style.setProperty("--count", images.length);
          tiles.replaceChildren(...images.map(tile));
        };
        function tile(png, i) {
          const image = make("img", { src: dataUrl(png), alt: `Step ${i + 1} of ${images.length}` });
          const explore = () => change({ ...UNTOUCHED, view: "explore", latent: latents[i] });
          return button(image, explore, { title: image.alt });
        }
      });
    },
  };
}

// Make the animation, which goes there and back and can be stopped.
function player(model, life) {
  const canvas = make("canvas", { role: "img", "aria-label": "From start to end and back" });
  const place = area(make("div", { class: "frame" }, canvas), life);
  let frames = [], body, playing = !matchMedia("(prefers-reduced-motion: reduce)").matches, since = 0;
  const toggle = button("", () => { playing = !playing; since = performance.now(); label(); });
  const label = () => { toggle.textContent = playing ? "Pause" : "Play"; };
  const draw = (frame) => {
    canvas.getContext("2d").drawImage(frame, 0, 0);
    canvas.dataset.frame = frames.indexOf(frame);
  };
  const tick = (now) => {
    if (life.aborted) return;
    if (playing && frames.length) {
      // The time of a frame may be slightly before the click or the answer that began the animation.
      const at = Math.floor(Math.max(0, now - since) * FRAME_RATE / 1000) % (2 * frames.length - 2);
      draw(frames[at < frames.length ? at : 2 * frames.length - 2 - at]);
    }
    requestAnimationFrame(tick);
  };
  label();
  requestAnimationFrame(tick);
  const smooth = { frame_rate: FRAME_RATE, there_and_back: true };
  const files = () => [["GIF", `${model.name}.gif`, file(body, "gif", smooth)], ["WebP", `${model.name}.webp`, file(body, "webp-animation", smooth)]];
  const command = () => curlOf("/v1/interpolate", { ...body, ...smooth, format: "webp-animation" }, "animation.webp");
  return {
    element: captioned(place.element, make("span", {}, "There and back"), command, files, toggle),
    update(wanted) {
      body = wanted;
      place.want(JSON.stringify(wanted), async (signal) => {
        const { images } = await postJson("/v1/interpolate", wanted, signal);
        const loaded = images.map((png) => make("img", { src: dataUrl(png) }));
        await Promise.all(loaded.map((image) => image.decode()));
        return () => {
          frames = loaded;
          Object.assign(canvas, { width: frames[0].naturalWidth, height: frames[0].naturalHeight });
          since = performance.now();
          draw(frames[0]);
        };
      });
    },
  };
}
