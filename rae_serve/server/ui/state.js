// The state of the page. All of it is in the address, #VIEW?KEY=VALUE&…, except the files that the user chose.

const MAX_INTEGER = Number.MAX_SAFE_INTEGER;

// How a value is read from the address and written into it. `read` throws a problem that completes "KEY must be …".
const integer = (initial, least = 0, most = MAX_INTEGER) => ({
  initial, write: String,
  read: (text) => within(/^-?\d+$/.test(text), Number(text), least, most, "a whole number"),
});
const number = (initial, least, most) => ({
  initial, write: String, read: (text) => within(text !== "", Number(text), least, most, "a number"),
});
const text = (initial) => ({ initial, write: String, read: String });
const choice = (initial, ...options) => ({
  initial, write: String,
  read: (value) => options.includes(value) ? value : refuse(options.join(" or ")),
});
const flag = { initial: false, write: () => "1", read: (value) => value === "1" || refuse("1 or left out") };
const latent = { initial: null, write: packed, read: unpacked };
const end = (initial) => ({ initial, write: (point) => point.latent ? packed(point.latent) : `${point.seed}:${point.row}`, read: readEnd });
const marks = {
  initial: [], many: true, write: (values) => values,
  read: (entries) => entries.every((entry) => /^\d+:\d+(:[\d.]+)?$/.test(entry)) ? entries : refuse("SEED:ROW or SEED:ROW:TEMPERATURE"),
};
const strengths = {
  initial: {}, many: true,
  write: (values) => Object.entries(values).map(([name, value]) => `${name}:${value}`),
  read: (entries) => Object.fromEntries(entries.map((entry) => {
    const [, name, value] = /^(.+):(-?[\d.]+)$/.exec(entry) ?? [];
    return Number.isFinite(Number(value)) ? [name, Number(value)] : refuse("NAME:NUMBER");
  })),
};

const KEYS = {
  model: text(""),
  beside: text(""), // a second model, for comparison
  seed: integer(7), row: integer(0), temperature: number(1, 0, 10),
  latent, // a point that comes from no seed, and is then used instead of it
  picture: text(""), // the id of the user's file that `latent` was encoded from
  edit: strengths, // strengths by attribute
  along: strengths, // what is added along a principal direction, by number
  move: strengths, // what is added to a dimension of the latent, by index
  from: integer(0), // the first row of the gallery
  open: flag, // whether the row is shown in a dialog
  marking: flag, // whether a click marks a picture of the gallery
  has: marks, lacks: marks, // the pictures that have the attribute to be made, and those that do not
  strength: number(0, -2, 2), // by which the new attribute is tried
  more: flag, // whether all dimensions are shown
  start: end({ seed: 7, row: 0 }), end: end({ seed: 7, row: 1 }), steps: integer(10, 2, 64),
  space: choice("noise", "noise", "latent"), path: choice("spherical", "spherical", "linear"),
  layer: choice("all", "all", "images", "prior", "pictures"), label: text(""), // what the map shows
  pixels: choice("auto", "auto", "sharp", "smooth"),
};
const VIEWS = ["gallery", "map", "explore", "interpolate", "edit", "about"];

// The files that the user chose, by id; the address can name them, but not keep them.
export const files = new Map();

const listeners = [];
let tag; // what made the last entry of the history
export let state, faults;
read();
addEventListener("popstate", () => { tag = undefined; read(); tell(); });

export function onChange(listener) {
  listeners.push(listener);
}

// Change the state and the address. Without `how`, the browser's Back undoes the change; `tag` makes one step of several
// changes of the same kind, and `replace` makes none.
export function change(changes, how = {}) {
  state = { ...state, ...changes };
  const address = addressOf(state);
  if (address !== location.hash || faults.length) {
    const again = how.replace || (how.tag !== undefined && how.tag === tag);
    history[again ? "replaceState" : "pushState"]({ ...(again ? history.state : {}), ...how.entry }, "", address);
  }
  tag = how.replace ? tag : how.tag;
  faults = [];
  tell();
}

// Change the state to be seen at once, and the address soon after: browsers limit how often it may change.
let later;
export function changeLive(changes, name) {
  state = { ...state, ...changes };
  tell();
  clearTimeout(later);
  later = setTimeout(() => change({}, { tag: name }), 200);
}

export function addressOf(wanted) {
  const query = new URLSearchParams();
  for (const [key, { initial, write }] of Object.entries(KEYS)) {
    if (key !== "model" && JSON.stringify(wanted[key]) === JSON.stringify(initial)) continue;
    for (const value of [write(wanted[key])].flat()) query.append(key, value);
  }
  return `#${wanted.view}?${String(query).replaceAll("%3A", ":")}`;
}

export function linkTo(wanted) {
  return location.href.split("#")[0] + addressOf(wanted);
}

function tell() {
  for (const listener of listeners) listener();
}

function read() {
  const [view, query] = location.hash.slice(1).split("?");
  const given = new URLSearchParams(query);
  state = { view: VIEWS.includes(view) ? view : "gallery" };
  faults = view && !VIEWS.includes(view) ? [{ what: `There is no view “${view}”: it must be ${VIEWS.join(" or ")}.` }] : [];
  for (const [key, { initial, many, read }] of Object.entries(KEYS)) {
    state[key] = initial;
    if (!given.has(key)) continue;
    try {
      state[key] = read(many ? given.getAll(key) : given.get(key));
    } catch (problem) {
      faults.push({ what: `“${key}=${given.getAll(key).join(", ")}”: ${key} must be ${problem.message}.` });
    }
  }
}

function refuse(what) {
  throw new Error(what);
}

function within(valid, value, least, most, what) {
  return valid && value >= least && value <= most ? value : refuse(`${what} from ${least} to ${most}`);
}

function readEnd(text) {
  const [, seed, row] = /^(\d+):(\d+)$/.exec(text) ?? [];
  if (seed === undefined) return { latent: unpacked(text, "SEED:ROW or a latent") };
  return { seed: KEYS.seed.read(seed), row: KEYS.row.read(row) };
}

// A latent as base64 of its float32 numbers, in the letters that an address may have.
function packed(values) {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpacked(text, what = "a latent as “Copy link” writes it") {
  let bytes;
  try {
    bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  } catch { refuse(what); }
  if (!bytes.length || bytes.length % 4) refuse(what);
  // The shortest decimals that give the same float32 again need at most nine digits.
  const values = [...new Float32Array(bytes.buffer)].map((value) => Number(value.toPrecision(9)));
  return values.every(Number.isFinite) ? values : refuse(what);
}
