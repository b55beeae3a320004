// The elements that the views are built from.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key.startsWith("data-") || key === "class" || key === "role") element.setAttribute(key, value);
    else if (key === "style") element.style.cssText = value;
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

const announced = document.getElementById("notice");
let hiding;

// Add an element where it can be seen and used: a modal dialog hides everything else.
function addOnTop(element) {
  (document.querySelector("dialog[open]") ?? document.body).append(element);
}

export function notice(text) {
  addOnTop(announced);
  announced.textContent = text;
  announced.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => announced.classList.remove("shown"), 4000);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // without https, browsers allow this only on localhost
    const area = make("textarea", { value: text });
    addOnTop(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  notice("Copied: " + (text.length > 120 ? text.slice(0, 117) + "…" : text));
}

export function button(content, onclick, properties = {}) {
  return make("button", { type: "button", onclick, ...properties }, content);
}

export function copyButton(text, get) {
  return button(text, () => copy(get()));
}

// Show commands that can be copied, under a sentence that says what for.
export function advice(sentence, ...lines) {
  return make("div", {}, make("p", {}, sentence),
    ...lines.map((line) => make("div", { class: "command" }, make("code", {}, line), copyButton("Copy", () => line))));
}

// Make a place for what the service answers. It shows that it waits, and a failure with a button that tries again.
//
// `want(key, work, group)` asks for the content of this key: `work(signal)` returns a function that shows it. An answer
// to an earlier key is dropped, but within one group, such as the movement of a slider, the running work is finished first.
export function area(content, life, className = "") {
  const problem = make("p");
  const fault = make("div", { class: "fault", role: "alert", hidden: true }, problem, button("Retry", () => run()));
  const element = make("div", { class: `area empty ${className}`, "aria-busy": "false" }, content, fault);
  let wanted = null, running = null;

  async function run() {
    running?.controller.abort();
    const job = wanted, controller = new AbortController();
    running = { job, controller };
    element.setAttribute("aria-busy", "true");
    fault.hidden = true;
    try {
      const show = await job.work(controller.signal);
      if (controller.signal.aborted) return;
      show();
      element.classList.remove("empty");
    } catch (error) {
      if (controller.signal.aborted) return;
      element.classList.add("empty");
      problem.textContent = error.message;
      fault.hidden = false;
    }
    running = null;
    element.setAttribute("aria-busy", "false");
    if (wanted !== job) run();
  }
  life.addEventListener("abort", () => running?.controller.abort());
  return {
    element,
    want(key, work, group = key) {
      if (wanted?.key === key) return;
      wanted = { key, work, group };
      if (running?.job.group !== group) run();
    },
  };
}

// Put a caption under a picture, with buttons that copy its curl command and save it, and others.
export function captioned(content, caption, command, files, ...others) {
  const tools = make("div", { class: "tools" }, ...others, copyButton("Copy curl", command), saver(files));
  return make("figure", {}, content, make("figcaption", {}, caption, tools));
}

// Make a figure whose picture can be replaced.
//
// `want(key, load, curl, group)`: `load(signal)` returns a Blob or the address of the picture.
export function figure(name, life, fileName) {
  const image = make("img", { alt: name, decoding: "sync" });
  const place = area(make("div", { class: "frame" }, image), life);
  const caption = make("span", {}, name);
  let command = "";
  return {
    element: captioned(place.element, caption, () => command, () => pictureFiles(image, fileName)),
    name(text, shown = text) {
      caption.textContent = shown;
      image.alt = text;
    },
    want(key, load, curl, group) {
      place.want(key, async (signal) => {
        const source = await load(signal);
        return () => {
          if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
          image.src = typeof source === "string" ? source : URL.createObjectURL(source);
          command = curl;
        };
      }, group);
    },
  };
}

function pictureFiles(image, name) {
  return [1, 4, 8].map((factor) => [`PNG ${factor}×`, `${name}-${factor}x.png`, () => enlarged(image, factor)]);
}

async function enlarged(image, factor) {
  const canvas = make("canvas", { width: factor * image.naturalWidth, height: factor * image.naturalHeight });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = getComputedStyle(image).imageRendering !== "pixelated";
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve));
}

// Make a menu that saves files. `entries()` returns [label, file name, function that returns a Blob] of each.
export function saver(entries) {
  const list = make("div", { class: "list" });
  const menu = make("details", { class: "menu" }, make("summary", {}, "Download"), list);
  const save = async (name, load) => {
    menu.open = false;
    try {
      const address = URL.createObjectURL(await load());
      make("a", { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      notice(error.message);
    }
  };
  menu.addEventListener("toggle", () => {
    if (menu.open) list.replaceChildren(...entries().map(([text, name, load]) => button(text, () => save(name, load))));
  });
  menu.addEventListener("focusout", (event) => { if (!menu.contains(event.relatedTarget)) menu.open = false; });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    event.preventDefault();
    menu.open = false;
    menu.firstChild.focus();
  });
  return menu;
}

// Make a slider that is filled from its centre. With `opposite`, the name of the left end, `name` stands at the right end.
// `set(value, home)` moves it; `home` is where its reset button leads.
export function slider({ name, opposite, low, high, centre = 0, ticks = [], onInput, onPeek }) {
  let home = centre;
  const output = make("output"), label = opposite ? `${opposite} to ${name}` : name;
  const input = make("input", { type: "range", min: low, max: high, step: "any", "aria-label": label });
  const reset = button("↺", () => { onInput(home); input.focus(); }, { "aria-label": `Reset ${label}`, title: "Reset" });
  const at = (value) => Math.min(1, Math.max(0, (value - input.min) / (input.max - input.min)));
  const marks = make("span", { class: "ticks", "aria-hidden": "true" });
  const element = make("div", { class: opposite ? "slider pair" : "slider" },
    ...(opposite ? [make("span", {}, opposite), output, reset, make("span", {}, name)] : [make("span", {}, name), reset, output]),
    make("div", { class: "track" }, input, marks));
  const move = (value) => { set(value); onInput(value); };
  const set = (value, start = home) => {
    home = start;
    input.min = Math.min(low, value);
    input.max = Math.max(high, value);
    input.value = value;
    output.textContent = value.toFixed(2).replace(/^-(0\.00)$/, "$1");
    reset.style.visibility = Math.abs(value - home) < 1e-6 ? "hidden" : "";
    const ends = [at(centre), at(value)].sort((a, b) => a - b);
    input.style.setProperty("--from", ends[0]);
    input.style.setProperty("--to", ends[1]);
    marks.replaceChildren(...ticks.map((tick) => make("i", { style: `--at:${at(tick)}` })));
  };
  input.addEventListener("input", () => move(Number(input.value)));
  input.addEventListener("dblclick", () => onInput(home));
  // By itself an arrow key moves a slider of step "any" very little.
  input.addEventListener("keydown", (event) => {
    const sign = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!sign) return;
    event.preventDefault();
    move(Math.min(high, Math.max(low, Number(input.value) + sign * (high - low) / 40)));
  });
  if (onPeek) for (const type of ["pointerenter", "focusin"]) element.addEventListener(type, onPeek);
  return { element, set };
}

export function field(name, input) {
  return make("label", {}, make("span", {}, name), input);
}

// Make a field for a whole number.
export function integer(least = 0, most = Number.MAX_SAFE_INTEGER, className = "") {
  return make("input", { type: "number", min: least, max: most, step: 1, required: true, class: className });
}

// Show a value in a field, unless the field shows it already or the user is typing another one.
export function put(input, value) {
  if (input.dataset.put === String(value)) return;
  input.dataset.put = value;
  input.value = value;
}

// Make a choice between options, each [value, text] or a value that is its own text. `take` gets the chosen value.
export function select(options, take) {
  const element = make("select", { onchange: () => take(element.value) });
  offer(element, options);
  return element;
}

// Replace the options of a choice, unless they are there already, and choose one.
export function offer(element, options, value) {
  const wanted = options.map((option) => [option].flat());
  if (String(wanted.map(([value]) => value)) !== String([...element.options].map((option) => option.value))) {
    element.replaceChildren(...wanted.map(([value, text = value]) => make("option", { value }, text)));
  }
  if (value !== undefined) element.value = value;
}

// Ask the user for an API key in a dialog that cannot be cancelled; `refused` says that the last key was wrong.
export function askForKey(refused) {
  return new Promise((resolve) => {
    const key = make("input", { type: "password", required: true, autocomplete: "current-password" });
    const dialog = make("dialog", { "aria-label": "Key" },
      make("form", { onsubmit: (event) => { event.preventDefault(); dialog.close(key.value.trim()); } },
        make("p", {}, refused ? "The service does not know this key." : "This service asks for a key."),
        make("div", { class: "bar" }, field("Key", key), make("button", { class: "primary" }, "Use it"))));
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => { dialog.remove(); resolve(dialog.returnValue); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
