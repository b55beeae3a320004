import type { Image, Picture } from "./rae-bundle.js";

/** The file is no picture that can be read. */
export class PictureError extends Error {}

/** Read a picture in a browser: PNG to the bit, other formats as the browser decodes them. */
export function readPicture(blob: Blob): Promise<Picture>;
/** Read a PNG file. */
export function readPng(bytes: Uint8Array): Promise<Picture>;
/** Write an image as a PNG file. */
export function writePng(image: Image, width: number, height: number): Promise<Uint8Array>;
