// What the page asks of the model, as plain data, so that a thread of its own can be asked the same.

import { load } from "./steprnn.js";

let model = null;
const texts = new Map(); // those being written, by number

export const ASKED = {
  /** Load the model; gives what the page tells of it. */
  async load({ url, variant }, progress) {
    model = await load(url, { variant, progress });
    model.encode("", "skip"); // it has to be a model of text
    const { vocabulary, unit, engine, artefact, manifest } = model;
    return { vocabulary, unit, engine, variant: artefact.variant, bytes: manifest.files[artefact.path].bytes };
  },

  /** Begin a text. */
  begin({ text, prompt, options }) {
    texts.set(text, model.stream(prompt, options));
  },

  /** The next pieces of a text, until there are `most` or so many milliseconds are over. */
  async take({ text, most, milliseconds }) {
    const [pieces, from] = [[], performance.now()];
    let [done, busy] = [false, 0];
    while (!done && pieces.length < most && busy < milliseconds) {
      try {
        const next = await texts.get(text).next();
        done = next.done;
        if (!done) pieces.push(next.value);
      } catch (error) {
        if (!pieces.length) throw error;
        texts.set(text, { next: () => Promise.reject(error) }); // once what is there was shown
        break;
      }
      busy = performance.now() - from;
    }
    return { pieces, done, busy };
  },

  /** Give a text up. */
  async end({ text }) {
    await texts.get(text)?.return?.();
    texts.delete(text);
  },
};
