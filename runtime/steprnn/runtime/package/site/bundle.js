// Reads a bundle from its address, as docs/bundle-format.md of steprnn says: each file is compared with
// its record before it is used.

import { BundleError, UsageError } from "./errors.js";
import { joined, readNpz } from "./npz.js";
import { sha256 } from "./sha256.js";

const FORMAT = "steprnn.bundle";
const VERSION = 1;
// The names of the bytes of UTF-8; those that are no characters by themselves as servers of completions name them.
const BYTES = Array.from({ length: 256 }, (_, i) => (i < 128 ? String.fromCharCode(i) : `bytes:\\x${i.toString(16)}`));
const MOST_MANIFEST = 2 ** 22; // bytes, as the Python side has it

/** A bundle's manifest, and its files once they are asked for. */
export class Bundle {
  #place;
  #source;

  constructor(place, manifest, source) {
    this.#place = place;
    this.#source = source;
    this.manifest = manifest;
  }

  /**
   * Read the manifest.
   * @param {(name: string) => URL} place where a file of the bundle is
   * @param {{ fetch?: typeof fetch, signal?: AbortSignal }} [source] what fetches it, and gives it up
   */
  static async open(place, source = {}) {
    const name = "manifest.json";
    const manifest = parse(await get(place(name), name, { ...source, most: MOST_MANIFEST }), name);
    checkVersion(manifest, name, FORMAT);
    try {
      checkManifest(manifest);
    } catch (error) {
      if (error instanceof BundleError) throw error;
      throw new BundleError("damaged", `${name} is damaged (${error.message}); export again`, { file: name });
    }
    return new Bundle(place, manifest, source);
  }

  /** The ONNX graph of a variant; throws `UsageError` where the bundle has none. */
  artefact(variant) {
    const onnx = this.manifest.artefacts.filter((a) => a.format === "onnx");
    const found = onnx.find((a) => a.variant === variant);
    if (found) return found;
    const held = onnx.map((a) => a.variant).join(", ") || "none";
    throw new UsageError("variant", `the bundle has no ${variant} graph in ONNX; it holds ${held}`, {
      variant,
      held,
    });
  }

  /** Whether the manifest lists a file. */
  has(name) {
    return Object.hasOwn(this.manifest.files, name);
  }

  /**
   * The bytes of a file, verified.
   * @param {string} name
   * @param {(bytes: number, of: number) => void} [progress]
   * @returns {Promise<Uint8Array>}
   */
  async read(name, progress) {
    const expected = this.manifest.files[name];
    const of = expected.bytes;
    const bytes = await get(this.#place(name), name, { ...this.#source, progress, of, most: of });
    if (bytes.length !== of) {
      const message = `${name} has ${bytes.length} bytes, expected ${of}; copy the folder again`;
      throw new BundleError("size", message, { file: name, got: bytes.length, expected: of });
    }
    if ((await sha256(bytes)) !== expected.sha256) {
      const message = `${name} was altered: its sha256 is not the manifest's; copy the folder again`;
      throw new BundleError("altered", message, { file: name });
    }
    return bytes;
  }

  /** `tokens`, what each stands for, and their `unit`, "character" or "byte"; null where nothing tells. */
  async vocabulary() {
    const name = "vocabulary.json";
    if (!this.has(name)) return null;
    const record = parse(await this.read(name), name);
    checkVersion(record, name, "steprnn.vocabulary");
    const unit = record.unit;
    const tokens = unit === "byte" && record.tokens === undefined ? BYTES : record.tokens;
    const named = unit === "character" || tokens === BYTES;
    const whole = named && Array.isArray(tokens) && tokens.every((t) => typeof t === "string" && t);
    if (!whole || !tokens.length || new Set(tokens).size !== tokens.length) {
      const message = `${name}: tokens must be a list of different characters; copy the folder again`;
      throw new BundleError("damaged", message, { file: name });
    }
    const { tokens: size } = this.manifest.step.inputs[0];
    if (tokens.length !== size) {
      const message = `${name} has ${tokens.length} tokens and the model ${size}; export again`;
      throw new BundleError("damaged", message, { file: name });
    }
    return { tokens, unit };
  }

  /** What a stream begins with, by state: zero, but for what initial.npz holds. */
  async initialState() {
    const name = "initial.npz";
    const most = 4 * this.manifest.step.states.reduce((sum, state) => sum + product(state.shape), 0);
    const arrays = this.has(name) ? await readNpz(await this.read(name), name, most) : new Map();
    const states = {};
    for (const state of this.manifest.step.states) {
      const size = state.shape.reduce((a, b) => a * b, 1);
      const given = arrays.get(state.name);
      if (given && (!(given.data instanceof Float32Array) || String(given.shape) !== String(state.shape))) {
        const message = `${name}: ${state.name} has another shape or dtype than the state; export again`;
        throw new BundleError("damaged", message, { file: name });
      }
      states[state.name] = given ? given.data : new Float32Array(size);
    }
    return states;
  }
}

function checkManifest(manifest) {
  const { model, step, artefacts, files, about } = manifest;
  if (typeof model !== "string" || typeof about !== "object") throw new Error("model or about is missing");
  for (const state of step.states) {
    if (state.next !== `next_${state.name}`) throw new Error(`${state.name} does not pair with its next`);
  }
  let numbers = 0;
  for (const tensor of [...step.inputs, ...step.states, ...step.outputs]) {
    const fits = Array.isArray(tensor.shape) && tensor.shape.every((n) => Number.isInteger(n) && n > 0);
    numbers += fits ? product(tensor.shape) : 0;
    if (!fits || numbers > 2 ** 28) throw new Error(`${tensor.name} has no shape`);
    if (tensor.dtype !== "float32" && tensor.dtype !== "int32") throw new Error(`${tensor.name} has no dtype`);
  }
  for (const [name, { bytes, sha256: digest }] of Object.entries(files)) {
    if (!Number.isInteger(bytes) || typeof digest !== "string") throw new Error(`${name} has no record`);
    if (!isInside(name)) {
      const quoted = JSON.stringify(name);
      const message = `manifest.json names the file ${quoted}, outside the bundle; do not trust it`;
      throw new BundleError("outside", message, { file: name });
    }
  }
  for (const { name, format, path } of artefacts) {
    const held = Object.hasOwn(files, path) || Object.keys(files).some((n) => n.startsWith(`${path}/`));
    if (!format || !held) throw new Error(`it lists no file of ${name}`);
  }
}

function product(shape) {
  return shape.reduce((a, b) => a * b, 1);
}

/** Whether a file's name, with `/` between folders, stays in its folder on every system. */
function isInside(name) {
  const strange = /[\\:*?"<>|\x00-\x1f\x7f-\x9f]/.test(name) || /\p{Surrogate}/u.test(name);
  return !strange && name.length <= 1024 && name.split("/").every(isName);
}

/** Whether a part of a path is a name on every system, and of a length that one can be given. */
function isName(part) {
  const device = /^(con|prn|aux|nul|(com|lpt)[1-9\u00b9\u00b2\u00b3])$/i.test(part.split(".")[0].trimEnd());
  const short = new TextEncoder().encode(part).length <= 255;
  return !["", ".", ".."].includes(part) && !/[. ]$/.test(part) && !device && short;
}

function checkVersion(record, name, format) {
  if (record?.format !== format) {
    throw new BundleError("format", `${name} is not what it should be: expected "format": "${format}"`, {
      file: name,
    });
  }
  if (record.version !== VERSION) {
    const message = `${name} has version ${record.version} and this page reads ${VERSION}; package it again`;
    throw new BundleError("version", message, { file: name, got: record.version, expected: VERSION });
  }
}

function parse(bytes, name) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    const message = `${name} is not JSON (${error.message}); copy the folder again`;
    throw new BundleError("json", message, { file: name });
  }
}

/** A file's address in a folder: its name is a path and nothing else, whatever characters it has. */
export function address(name, base) {
  return new URL(name.split("/").map(encodeURIComponent).join("/"), base);
}

/** The bytes at an address, in words where there are none; of more than `most`, the first so many and some. */
async function get(url, name, { fetch = globalThis.fetch, signal, progress, of, most }) {
  let response;
  const chunks = [];
  let length = 0;
  try {
    // Asked for anew, and not sent again where it is the same: a page may have been replaced by another.
    response = await fetch(url, { signal, cache: "no-cache" });
    if (response.ok) {
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        chunks.push(value);
        length += value.length;
        if (length > most) {
          reader.cancel().catch(() => {});
          break;
        }
        progress?.(length, of);
      }
    }
  } catch (error) {
    if (signal?.aborted) throw error;
    const message = `${name} cannot be fetched from ${url.host || "this address"} (${error.message}); try again`;
    throw new BundleError("network", message, { file: name });
  }
  if (!response.ok) {
    const message = `${name} is missing (HTTP status ${response.status}); copy the whole folder`;
    throw new BundleError("missing", message, { file: name, status: response.status });
  }
  return joined(chunks, length);
}
