// The view of what the model is: the verdict of an evaluation, its figures, and its codes against its prior.

import { advice, area, make } from "./elements.js";
import { pathOf } from "./point.js";
import { getBlob, pathOfModel } from "./service.js";

const SHOWN = 16; // the most dimensions that are shown unasked
const GRADES = { good: "Fit to ship", doubtful: "Look closer before you ship it", bad: "Not fit to ship" };

export function about(model, life) {
  const { image, latent, noise, training, quality, evaluation, parity, attributes, ...made } = model.manifest;
  const facts = {
    "Model": `${made.model.kind}, by the recipe ${made.model.recipe}`,
    "Training": `${training.steps.toLocaleString()} steps on ${training.images.toLocaleString()} images of ${training.data}, seed ${training.seed}`,
    "Shapes": `${noise.dim} numbers of noise → latent of ${latent.dim} dimensions → image of ${image.width} × ${image.height}, ${image.mode === "L" ? "grey" : "colour"}`,
    "Attributes": Object.entries(attributes).map(([name, { auc }]) => (auc === undefined ? name : `${name} (AUC ${auc.toFixed(2)})`)).join(", ") || "none",
    "Licence": made.licence,
    "Made by": made.created_by,
    "Digest": made.digest,
  };
  const figures = [...Object.entries(quality).map(([name, { value, protocol }]) => [name.replaceAll("_", " "), String(Number(value.toPrecision(4))), protocol]),
    ["parity", `${parity.decoder_grey_levels} of 255`, "grey levels, ONNX against torch, on the golden images"]];
  return {
    about: `What “${model.name}” is, and how good.`,
    element: make("div", { class: "about" },
      ...(evaluation ? verdict(evaluation) : [advice(
        "Nobody has judged this model yet. This command does, and the verdict then appears here:", `rae-serve evaluate ${pathOf(model)} --keep verdict`)]),
      make("h3", {}, "Facts"), table(["fact", "value"], Object.entries(facts)),
      make("p", {}, "The model knows its training images only: what is missing or misrepresented in them is so here too."),
      make("h3", {}, "Figures"), table(["figure", "value", "how it was measured"], figures),
      ...(latent.prior_quantiles ? [spreads(latent)] : []),
      ...(evaluation?.pictures ?? []).map((picture) => shown(model, picture, life))),
    update() {},
  };
}

function verdict({ grade, summary, data, findings }) {
  return [make("h3", { class: grade }, GRADES[grade]), make("p", {}, `${summary} Compared with ${data}.`),
    table(["question", "answer", "why"], findings.map(({ question, grade: answer, found, threshold }) => [question, answer, `${found} (${threshold})`]))];
}

function table(headings, rows) {
  const cells = (tag, texts) => make("tr", {}, ...texts.map((text) => make(tag, { class: text === "bad" ? text : "" }, text)));
  return make("div", { class: "wide", tabIndex: 0, role: "group", "aria-label": headings[0] },
    make("table", {}, make("thead", {}, cells("th", headings)), make("tbody", {}, ...rows.map((row) => cells("td", row)))));
}

// Show for each dimension where 90 % of the codes of images lie, and 90 % of the prior's latents below.
function spreads({ std, active, quantiles, prior_quantiles: prior, quantile_levels: levels }) {
  const [low, middle, high] = [0.05, 0.5, 0.95].map((level) => levels.indexOf(level));
  const ends = [quantiles, prior].flatMap((table) => [...table[low], ...table[high]]), least = Math.min(...ends), width = Math.max(...ends) - least || 1;
  const part = (from, to) => make("i", { style: `left:${100 * (from - least) / width}%;width:${100 * (to - from) / width}%` });
  const bar = (table, i) => make("div", {}, part(table[low][i], table[high][i]), part(table[middle][i], table[middle][i]));
  const rows = std.map((_, i) => i).sort((a, b) => std[b] - std[a]).map((i) => make("div", {}, make("span", {}, `Dimension ${active[i]}`),
    bar(quantiles, i), bar(prior, i)));
  return make("details", { class: "rest", open: rows.length <= SHOWN }, make("summary", {}, "Codes against prior, by dimension"),
    make("p", { class: "hint" }, "Above in each row, the codes of training images; below, samples of the prior. The bar holds 90 % of them; the tick is " +
      "the median. Where the two differ, the model makes what it has not seen, or misses what it has."),
    make("div", { class: "spreads", "aria-hidden": "true" }, ...rows));
}

function shown(model, { title, caption, file }, life) {
  const image = make("img", { alt: title }), place = area(image, life, "tall");
  place.want(file, async (signal) => {
    const picture = await getBlob(pathOfModel(model.name, `/pictures/${file}`), signal);
    return () => { image.src = URL.createObjectURL(picture); };
  });
  return make("section", {}, make("h3", {}, title), make("p", {}, caption), place.element);
}
