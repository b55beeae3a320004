// The elements that the views are built from.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "class" || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

let hiding;

export function notice(text) {
  const place = document.getElementById("notice");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => place.classList.remove("shown"), 4000);
}

// Return an event handler that runs `work` and shows a notice if it fails.
export function act(work) {
  return async (...args) => {
    try {
      await work(...args);
    } catch (error) {
      notice(error.message);
    }
  };
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // without https, browsers allow this only on localhost
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  notice("Copied: " + (text.length > 120 ? text.slice(0, 117) + "…" : text));
}

// Make a figure whose picture can be replaced, with a button that copies the curl command for the picture.
export function figure(caption, kind = "large") {
  const image = make("img", { alt: caption });
  let command = "";
  const button = make("button", { type: "button", onclick: () => copy(command) }, "Copy curl");
  const text = make("span", {}, caption);
  const element = make("figure", { class: kind, hidden: true }, make("div", {}, image), make("figcaption", {}, text, button));
  return {
    element,
    show(src, curl) {
      if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
      image.src = src;
      command = curl;
      element.hidden = false;
    },
  };
}

// Make a slider; where its left end has a name of its own, `opposite`, `name` stands at the right end.
export function slider(name, low, high, value, onInput, opposite) {
  const output = make("output", {}, value.toFixed(2));
  const input = make("input", { type: "range", min: low, max: high, step: "any", value });
  input.setAttribute("aria-label", opposite ? `${opposite} to ${name}` : name);
  input.addEventListener("input", () => {
    output.textContent = Number(input.value).toFixed(2);
    onInput(Number(input.value));
  });
  // By itself an arrow key moves a slider of step "any" very little.
  input.addEventListener("keydown", (event) => {
    const sign = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!sign) return;
    event.preventDefault();
    input.value = Number(input.value) + sign * (high - low) / 40;
    input.dispatchEvent(new Event("input"));
  });
  if (opposite) return make("label", { class: "pair" }, make("span", {}, opposite), output, make("span", {}, name), input);
  return make("label", {}, make("span", {}, name), output, input);
}

export function field(name, input) {
  return make("label", {}, name, input);
}

export function integer(value, className = "") {
  return make("input", { type: "number", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, value, required: true, class: className });
}

export function choice(options, value) {
  return make("select", { value }, ...options.map((o) => make("option", { value: o, selected: o === value }, o)));
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
