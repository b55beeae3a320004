// Write images of a seed as PNG files: node sample.js BUNDLE SEED N OUT
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import ort from "onnxruntime-node";
import { loadBundle } from "rae-bundle";
import { writePng } from "rae-bundle/pictures.js";

const [folder, seed, n, out] = process.argv.slice(2);
if (out === undefined) fail("usage: node sample.js BUNDLE SEED N OUT");
try {
  const bundle = await loadBundle((name) => readFile(join(folder, name)), ort);
  const images = await bundle.sample({ seed: Number(seed), n: Number(n) });
  const { width, height } = bundle.manifest.image;
  await mkdir(out, { recursive: true });
  for (const [row, image] of images.entries()) {
    await writeFile(join(out, `${seed}-${String(row).padStart(6, "0")}.png`), await writePng(image, width, height));
  }
} catch (error) {
  fail(error.message);
}

function fail(problem) {
  console.error(problem);
  process.exit(2);
}
