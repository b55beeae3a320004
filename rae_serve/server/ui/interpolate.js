// The view of the interpolation between two points, as a strip and as an animation.

import { act, choice, field, figure, integer, make } from "./elements.js";
import { parsePoint } from "./explore.js";
import { curlOf, imageAddress, latest, load, picture } from "./service.js";

// Kept between visits: the user picks one end in the gallery, and then the other one.
const ends = { start: "7:0", end: "7:1" };

export function interpolate(place, model, query) {
  for (const name of ["start", "end"]) ends[name] = query[name] ?? ends[name];
  const steps = make("input", { type: "number", min: 2, max: 64, value: 10, class: "short" });
  const space = choice(["noise", "latent"], "noise"), path = choice(["spherical", "linear"], "spherical");
  const strip = figure("From start to end", "strip"), animation = figure("From start to end, and again");
  const body = (format) => ({
    model: model.name, start: parsePoint(ends.start), end: parsePoint(ends.end),
    steps: Number(steps.value), space: space.value, path: path.value, format,
  });
  const draw = latest(act(async () => {
    const line = body("png"), moving = { ...body("webp-animation"), steps: 3 * Number(steps.value) };
    strip.show(await picture("/v1/interpolate", line), curlOf("/v1/interpolate", line, "strip.png"));
    animation.show(await picture("/v1/interpolate", moving), curlOf("/v1/interpolate", moving, "animation.webp"));
  }));
  for (const input of [steps, space, path]) input.addEventListener("change", draw);
  place.append(
    make("div", { class: "ends three" }, end("start", model, draw), end("end", model, draw),
      make("div", {}, make("h2", {}, "Animated"), animation.element)),
    make("div", { class: "bar" }, field("Steps", steps), field("Space", space), field("Path", path)),
    strip.element);
  draw();
}

function end(name, model, draw) {
  const { seed, index } = parsePoint(ends[name]);
  const seedInput = integer(seed), rowInput = integer(index, "short");
  const image = make("img", { alt: `The ${name}` });
  const show = () => {
    ends[name] = `${seedInput.value}:${rowInput.value}`;
    const point = parsePoint(ends[name]);
    act(load)(image, imageAddress(model.name, point.seed, point.index));
  };
  for (const input of [seedInput, rowInput]) input.addEventListener("change", () => { show(); draw(); });
  show();
  const title = name === "start" ? "Start" : "End";
  return make("div", {}, make("h2", {}, title), make("figure", { class: "large" }, image),
    make("div", { class: "bar" }, field(`${title} seed`, seedInput), field(`${title} row`, rowInput)));
}
