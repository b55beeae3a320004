/** An image: height · width · (1 or 3) bytes, row by row, the channels of a pixel side by side. */
export type Image = Uint8Array;
/** A latent, or a row of noise. */
export type Row = Float32Array;
export type Space = "latent" | "noise";
export type Path = "linear" | "spherical";
export type Graph = "prior" | "decoder" | "encoder";

/** A picture of any size: upright, 8 bits a channel, grey, grey with alpha, RGB or RGBA. ImageData is one. */
export interface Picture {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray;
}

/** `image` of the manifest: the rules by which a picture becomes an image. */
export interface Rules {
  height: number;
  width: number;
  mode: "L" | "RGB";
  crop: "none" | "center" | number;
  resize: "nearest" | "box" | "bilinear" | "hamming" | "bicubic" | "lanczos";
  background: number;
}

/** The parts of manifest.json that this module uses; docs/bundle.schema.json in rae-serve describes all of it. */
export interface Manifest {
  schema_version: 2;
  licence: string;
  image: Rules;
  latent: { dim: number; mean: number[]; std: number[]; quantile_levels: number[]; quantiles: number[][] };
  noise: { dim: number; algorithm: "philox4x32-10/v1"; roles: ("gaussian" | "choice")[] };
  attributes: Record<string, { direction: number[]; opposite?: string; auc?: number }>;
  tolerance: { latents: number; grey_levels: number };
  digest: string;
  files: Record<string, { bytes: number; sha256: string }>;
  [more: string]: unknown;
}

/** The parts of onnxruntime-web and onnxruntime-node that this module uses. */
export interface Runtime {
  InferenceSession: { create(bytes: Uint8Array, options?: any): Promise<any> };
  Tensor: new (type: any, data: any, dims: readonly number[]) => any;
}

export interface Options {
  /** Given to InferenceSession.create, such as {executionProviders: ["webgpu"]}. */
  sessionOptions?: object;
  /** Called while a file is downloaded, and once it is checked. */
  onProgress?: (progress: { file: string; loaded: number; total: number }) => void;
}

/** Rows `row` … `row + n − 1` of a seed. */
export interface Seeded {
  seed: number;
  /** 0 by default. */
  row?: number;
  /** 1 by default. */
  n?: number;
  /** From 0 to 10, 1 by default: a factor on the gaussian columns of the noise. */
  temperature?: number;
}

/** The bundle is missing, damaged, or of a version that this module does not read. Wrong arguments are a RangeError. */
export class BundleError extends Error {}

export function loadBundle(
  source: string | URL | ((name: string) => Promise<ArrayBuffer | Uint8Array>),
  ort: Runtime,
  options?: Options,
): Promise<Bundle>;

export class Bundle {
  private constructor();
  readonly manifest: Manifest;
  readonly directions: Map<string, number[]>;
  size(...graphs: Graph[]): number;
  file(name: string): Promise<Uint8Array>;
  open(...graphs: Graph[]): Promise<void>;
  noise(rows: Seeded): Row[];
  sample(rows: Seeded): Promise<Image[]>;
  latents(noise: Row[]): Promise<Row[]>;
  decode(latents: Row[]): Promise<Image[]>;
  prepare(picture: Picture): Image;
  encode(images: Image[]): Promise<Row[]>;
  reconstruct(images: Image[]): Promise<Image[]>;
  between(start: Row, end: Row, steps: number, options?: { space?: Space; path?: Path }): Promise<Row[]>;
  interpolate(start: Row, end: Row, steps: number, options?: { space?: Space; path?: Path }): Promise<Image[]>;
  moved(latents: Row[], attribute: string, strengths: number[]): Row[];
  edit(latents: Row[], attribute: string, strengths: number[]): Promise<Image[]>;
  toRGBA(image: Image): ImageData["data"];
}

export function download(address: string | URL, report: (loaded: number) => void): Promise<ArrayBuffer>;
export function noise(seed: number, row: number, n: number, dim: number): Row[];
export function prepare(picture: Picture, rules: Rules): Image;
export function between(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  steps: number,
  path?: Path,
  centre?: ArrayLike<number>,
): Row[];
export function betweenNoises(a: Row, b: Row, steps: number, path: Path, roles: ("gaussian" | "choice")[]): Row[];
export function along(latents: Row[], direction: number[], strengths: number[]): Row[];
