// Runs a bundle of steprnn in the browser: `const model = await load("model/")`.

import { Bundle, address } from "./bundle.js";
import { Engine } from "./engine.js";
import { NotFinite, UnknownToken, UsageError } from "./errors.js";
import { DEFAULTS, Sampler, checkSampling, checkSeed, outOfRange } from "./sampling.js";
import { Session } from "./session.js";
import { until } from "./stops.js";

export * from "./errors.js";
export { Session };

const SLICE = 8; // milliseconds of work after which the page may draw and answer

/**
 * Load a bundle folder.
 * @param {string | URL | ((name: string) => URL)} url address of the folder, relative to the page, or of a file in it
 * @param {object} [options]
 * @param {string} [options.variant] such as "int8-weights", where the bundle has it
 * @param {string | URL | object} [options.engine] folder of onnxruntime-web's files, beside this module by default, or itself
 * @param {typeof fetch} [options.fetch] what brings the files instead of `fetch`
 * @param {AbortSignal} [options.signal] gives the loading up
 * @param {(bytes: number, of: number) => void} [options.progress] called as the graph arrives
 * @returns {Promise<Model>}
 */
export async function load(url, { variant = "float32", engine, fetch, signal, progress } = {}) {
  const base = typeof url === "function" ? null : folder(url, globalThis.document?.baseURI ?? import.meta.url);
  const bundle = await Bundle.open(base ? (name) => address(name, base) : url, { fetch, signal });
  const artefact = bundle.artefact(variant);
  const [vocabulary, initialState, graph] = await Promise.all([
    bundle.vocabulary(),
    bundle.initialState(),
    bundle.read(artefact.path, progress),
  ]);
  const opened = engine?.InferenceSession
    ? await Engine.of(engine, graph)
    : await Engine.open(graph, folder(engine ?? "ort/", import.meta.url));
  return new Model(bundle.manifest, artefact, opened, vocabulary, initialState);
}

function folder(url, base) {
  const found = new URL(url, base);
  found.search = found.hash = "";
  if (!found.pathname.endsWith("/")) found.pathname += "/";
  return found;
}

/** A loaded step graph with its vocabulary; made by `load`. */
export class Model {
  #engine;
  #indices;

  constructor(manifest, artefact, engine, vocabulary, initialState) {
    this.manifest = manifest;
    this.artefact = artefact;
    this.vocabulary = vocabulary?.tokens ?? null;
    this.unit = vocabulary?.unit ?? null;
    this.initialState = initialState;
    this.engine = engine.name;
    this.#engine = engine;
    this.#indices = new Map(vocabulary?.tokens.map((token, index) => [token, index]));
  }

  /** A stream of its own, from a state or from the beginning. */
  session(state) {
    return new Session(this, this.#engine, state);
  }

  /** The prompt and `length` characters that follow it, fewer where a stop string comes first. */
  async generate(prompt, options = {}) {
    let text = prompt;
    for await (const piece of this.stream(prompt, options)) text += piece;
    return text;
  }

  /**
   * The characters that follow the prompt, one at a time, without the prompt itself. Options that cannot be
   * meant throw at once, not at the first character.
   * @returns {AsyncGenerator<string>}
   */
  stream(prompt, options = {}) {
    const { length = 50, seed, stop = [], unknown = "error", signal, ...filters } = options;
    for (const name of Object.keys(filters)) {
      if (!Object.hasOwn(DEFAULTS, name)) throw new UsageError("option", `${name} is no option of stream`);
    }
    const sampling = { ...DEFAULTS, ...defined(filters) };
    checkSampling(sampling);
    const tokens = this.encode(prompt, unknown);
    if (!tokens.length) {
      const why = prompt ? "has no character of the vocabulary" : "is empty";
      const message = `the prompt ${why}; expected at least one character to begin with`;
      throw new UsageError(prompt ? "prompt-unknown" : "prompt-empty", message);
    }
    if (length !== Infinity && !(Number.isInteger(length) && length >= 0)) {
      throw outOfRange("length", length, "a whole number, at least 0, or Infinity");
    }
    const stops = typeof stop === "string" ? [stop] : [...stop];
    if (!stops.every((s) => typeof s === "string" && s)) throw new UsageError("stop", "a stop string is empty");
    const drawn = seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
    const pieces = this.#follow(tokens, length, new Sampler(sampling, checkSeed(drawn), tokens), signal);
    return stops.length ? until(pieces, stops) : pieces;
  }

  /** Token indices of a text, by code points or bytes of UTF-8; throws `UnknownToken`, which names the strangers. */
  encode(text, unknown = "error") {
    if (!this.vocabulary || !isLanguageModel(this.manifest.step)) {
      throw new UsageError("no-vocabulary", "the bundle has no vocabulary: step it with session().step(x)");
    }
    if (unknown !== "error" && unknown !== "skip") throw outOfRange("unknown", unknown, "'error' or 'skip'");
    const characters = [...text];
    const known = this.unit === "byte" ? (c) => !/\p{Surrogate}/u.test(c) : (c) => this.#indices.has(c);
    const strangers = [...new Set(characters.filter((c) => !known(c)))];
    if (strangers.length && unknown === "error") {
      const named = strangers.slice(0, 10).map((c) => `'${c}'`).join(" ") + (strangers.length > 10 ? " ..." : "");
      const message = `${named} not among the ${this.vocabulary.length} characters of the vocabulary`;
      throw new UnknownToken("unknown", `${message}; choose others, or skip them with unknown: "skip"`, {
        characters: strangers,
        size: this.vocabulary.length,
      });
    }
    const written = characters.filter(known);
    if (this.unit === "byte") return [...new TextEncoder().encode(written.join(""))];
    return written.map((c) => this.#indices.get(c));
  }

  /** Free the model's memory; it cannot be used after that. */
  async dispose() {
    await this.#engine.release();
  }

  async *#follow(tokens, length, sampler, signal) {
    const session = this.session();
    let rested = performance.now();
    let logits;
    let steps = 0;
    const step = async (token) => {
      signal?.throwIfAborted();
      if (performance.now() - rested > SLICE) {
        await rest();
        signal?.throwIfAborted();
        rested = performance.now();
      }
      logits = await session.step(token);
      steps++;
    };
    const choose = () => {
      try {
        return sampler.choose(logits);
      } catch (error) {
        throw error instanceof NotFinite
          ? new NotFinite(error.details.what, this.manifest.model, steps)
          : error;
      }
    };
    for (const token of tokens) await step(token);
    const decoder = this.unit === "byte" ? new TextDecoder("utf-8", { ignoreBOM: true }) : null;
    for (let left = length; left > 0; left--) {
      signal?.throwIfAborted();
      const token = choose();
      const piece = decoder ? decoder.decode(Uint8Array.of(token), { stream: true }) : this.vocabulary[token];
      if (piece) yield piece;
      if (left > 1) await step(token);
    }
    const broken = decoder?.decode(); // what stands for a character that never became whole
    if (broken) yield broken;
  }
}

/** Let the page draw and answer; unlike a timer, a message is not held back for 4 ms. */
function rest() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

function defined(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function isLanguageModel({ inputs, outputs }) {
  if (inputs.length !== 1 || outputs.length !== 1 || inputs[0].tokens === undefined) return false;
  return inputs[0].shape.length === 0 && String(outputs[0].shape) === String([inputs[0].tokens]);
}
