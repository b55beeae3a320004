// The panel of the gallery that makes an attribute of marked pictures: what its direction does, how good it is, and a name.

import { area, button, field, make, slider } from "./elements.js";
import { dataUrl, post, postJson } from "./service.js";
import { change, changeLive, state } from "./state.js";

const LEAST = 2; // pictures with the attribute, and as many without it, that give a direction
const SHOWN = 3; // pictures of each side on which the direction is tried
const SIDES = { has: "has it", lacks: "has it not" };
const NO_MARKS = { has: [], lacks: [], strength: 0 };

// A mark names a picture: SEED:ROW, and :TEMPERATURE if that is not 1.
export function markOf(seed, row, temperature) {
  return [seed, row, ...(temperature === 1 ? [] : [temperature])].join(":");
}

// Show on a tile how its picture is marked.
export function showMark(tile) {
  const { mark, name } = tile.point, side = state.marking && Object.keys(SIDES).find((key) => state[key].includes(mark));
  tile.dataset.side = side || "";
  tile.title = tile.firstChild.alt = side ? `${name}: ${SIDES[side]}` : name;
}

// Mark a picture as one that has the attribute, then as one that has it not, then as neither.
export function markNext(mark) {
  const { has, lacks } = state, others = (marks) => marks.filter((other) => other !== mark);
  if (has.includes(mark)) change({ has: others(has), lacks: [...lacks, mark] });
  else if (lacks.includes(mark)) change({ lacks: others(lacks) });
  else change({ has: [...has, mark] });
}

export function marking(model, life) {
  const count = make("p", { role: "status" }), verdict = make("p"), doubt = make("p", { class: "doubt" }), said = make("p", { class: "hint", role: "status" });
  const tried = make("div", { class: "tried" }), pictures = area(tried, life);
  const strength = slider({ name: "more of it", opposite: "less of it", low: -2, high: 2, onInput: (value) => changeLive({ strength: value }, "strength") });
  const name = make("input", { type: "text", required: true, maxLength: 64 });
  const keeper = make("form", { class: "bar", onsubmit: keep }, field("Name of the attribute", name), make("button", { class: "primary" }, "Keep it"));
  const found = area(make("div", { class: "found" }, make("div", {}, pictures.element, strength.element), make("div", {}, verdict, doubt), make("div", {}, keeper, said)), life);
  let answer = null;

  const request = () => ({ model: model.name, has: state.has.map(pointOf), lacks: state.lacks.map(pointOf) });

  async function keep(event) {
    event.preventDefault();
    try {
      await post("json", "/v1/attributes", { ...request(), keep: name.value.trim() }, life);
      said.textContent = `Kept. In a moment, Edit has a slider for “${name.value.trim()}”.`;
    } catch (error) {
      said.textContent = error.message.replace(/^keep: /, "");
    }
  }

  // Move some of the marked pictures along the direction.
  function tryOut() {
    const { attribute: { direction, images: [count] }, latents } = answer;
    const had = latents.slice(0, Math.min(SHOWN, count)), moved = [...had, ...latents.slice(count, count + SHOWN)];
    const body = { model: model.name, latents: moved.map((latent) => latent.map((start, i) => start + state.strength * direction[i])) };
    pictures.want(JSON.stringify(body), async (signal) => {
      const { images } = await postJson("/v1/decode", body, signal);
      return () => tried.replaceChildren(...images.map((png, i) => make("span", { "data-side": i < had.length ? "has" : "lacks" },
        make("img", { src: dataUrl(png), alt: `A picture that ${SIDES[i < had.length ? "has" : "lacks"]}, moved` }))));
    }, "tried");
  }

  function show() {
    const { attribute: { auc, images: [yes, no] }, can_keep: allowed } = answer;
    const measured = auc === undefined ? "" : ` AUC ${auc.toFixed(2)} on pictures held out in turn, where 0.5 is chance and 1 is perfect.`;
    verdict.textContent = `From ${yes} with it and ${no} without it.${measured}`;
    doubt.textContent = answer.doubt ?? "";
    keeper.hidden = !allowed;
    said.textContent = allowed ? "" : "This service keeps no attributes from the page. Its operator can allow it: RAE_SERVE_KEEP_ATTRIBUTES=true.";
    tryOut();
  }

  return {
    element: make("section", { class: "marking", "aria-label": "Mark an attribute" },
      make("div", { class: "bar" }, count, button("Clear", () => change(NO_MARKS)), button("Done", () => change({ marking: false }))), found.element),
    update() {
      const enough = Math.min(state.has.length, state.lacks.length) >= LEAST, body = request();
      const tally = `${state.has.length} ✓ and ${state.lacks.length} ✕ so far`;
      count.textContent = enough ? tally
        : `Choose a picture once if it has what you look for, twice if it does not. ${tally}; ${LEAST} of each show a direction.`;
      found.element.hidden = !enough;
      strength.set(state.strength);
      if (!enough) return;
      found.want(JSON.stringify(body), async (signal) => {
        const response = await post("json", "/v1/attributes", body, signal);
        return () => { answer = response; show(); };
      });
      if (answer) tryOut();
    },
  };
}

function pointOf(mark) {
  const [seed, index, temperature = 1] = mark.split(":").map(Number);
  return { seed, index, temperature };
}
