// How pictures are scaled: digits and icons stay sharp, at whole multiples of their size; photographs become smooth.

import { state } from "./state.js";

const SMALL = 64; // grey pictures up to this side are taken for drawings

// Tell the style sheet how the pictures in an element are scaled.
export function fit(element, { width, height, mode }) {
  const sharp = state.pixels === "auto" ? mode === "L" && Math.max(width, height) <= SMALL : state.pixels === "sharp";
  element.style.setProperty("--scaling", sharp ? "pixelated" : "auto");
  element.style.setProperty("--aspect", `${width} / ${height}`);
  element.style.setProperty("--unit", sharp ? `${width / devicePixelRatio}px` : "1px");
}
