// Choosing the next token from logits. docs/sampling.md of steprnn specifies it to the last step:
// repetition penalty, top-k, top-p, min-p, temperature, draw, from the likeliest token down.

import { NotFinite, UsageError } from "./errors.js";
import { Random } from "./random.js";

const LEAST_TEMPERATURE = 1e-6; // below it the draw is greedy, as it is in Python

/** The values that choose the likeliest token (greedy). */
export const DEFAULTS = Object.freeze({
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  repeatLastN: 64,
});

/** Throws `UsageError` where a value is outside its range. */
export function checkSampling(options) {
  const { temperature, topK, topP, minP, repeatPenalty, repeatLastN } = options;
  const count = (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 31;
  const ranges = {
    temperature: [temperature >= 0 && temperature <= 1000, "a number from 0 to 1000"],
    topK: [count(topK), "a whole number from 0 to 2147483647"],
    topP: [topP > 0 && topP <= 1, "a number above 0 and at most 1"],
    minP: [minP >= 0 && minP <= 1, "a number from 0 to 1"],
    repeatPenalty: [repeatPenalty >= 0.01 && repeatPenalty <= 100, "a number from 0.01 to 100"],
    repeatLastN: [count(repeatLastN), "a whole number from 0 to 2147483647"],
  };
  for (const [name, [fits, expected]] of Object.entries(ranges)) {
    if (typeof options[name] !== "number" || !fits) throw outOfRange(name, options[name], expected);
  }
}

/** The seed as a BigInt; throws `UsageError` where it is no whole number, or too large to be exact. */
export function checkSeed(seed) {
  const fits = typeof seed === "bigint" || Number.isSafeInteger(seed);
  if (!fits || seed < 0) throw outOfRange("seed", seed, "a whole number, at least 0; a BigInt above 2^53");
  return BigInt(seed);
}

/** The error for an option that cannot be meant. */
export function outOfRange(name, got, expected) {
  return new UsageError("range", `${name} is ${String(got)}; expected ${expected}`, { name, got, expected });
}

/** Chooses the tokens of one stream; holds its random numbers and its recent tokens. */
export class Sampler {
  #options;
  #random;
  #recent;
  #logits = new Float64Array(0); // after the penalty
  #weights = new Float64Array(0);

  /**
   * @param {object} options as `DEFAULTS`, whole
   * @param {number | bigint} seed at least 0
   * @param {Iterable<number>} [recent] tokens of the prompt
   */
  constructor(options, seed, recent = []) {
    checkSampling(options);
    this.#options = options;
    this.#random = new Random(checkSeed(seed));
    this.#recent = [...recent];
    this.#forget();
  }

  /**
   * The next token; throws `NotFinite` where the largest logit is NaN or infinite.
   * @param {Float32Array} logits `[vocabulary]`; left as they are
   */
  choose(logits) {
    if (this.#logits.length !== logits.length) {
      this.#logits = new Float64Array(logits.length);
      this.#weights = new Float64Array(logits.length);
    }
    this.#logits.set(logits);
    const { temperature, repeatPenalty } = this.#options;
    if (repeatPenalty !== 1) this.#penalise(repeatPenalty);
    const best = argmax(this.#logits);
    const top = this.#logits[best];
    if (!Number.isFinite(top)) throw new NotFinite(`the largest logit is ${top}`);
    const token = temperature < LEAST_TEMPERATURE ? best : this.#draw(best);
    if (repeatPenalty !== 1) {
      this.#recent.push(token);
      this.#forget();
    }
    return token;
  }

  #forget() {
    const more = this.#recent.length - this.#options.repeatLastN;
    if (more > 0) this.#recent.splice(0, more);
  }

  #penalise(penalty) {
    const logits = this.#logits;
    for (const token of new Set(this.#recent)) {
      logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
    }
  }

  #draw(best) {
    const { temperature } = this.#options;
    const logits = this.#logits;
    const weights = this.#weights;
    const u = this.#random.next();
    const top = logits[best];
    let sum = 0;
    for (let i = 0; i < logits.length; i++) sum += weights[i] = Math.exp((logits[i] - top) / temperature);
    // The likeliest has weight 1 and comes first, and a filter would only make the sum smaller. Most
    // draws end here, without a sort.
    if (u * sum < 1) return best;
    const kept = this.#kept(top);
    let whole = 0;
    for (const token of kept) whole += weights[token];
    let reached = 0;
    for (const token of kept) {
      reached += weights[token];
      if (reached > u * whole) return token;
    }
    return kept[kept.length - 1];
  }

  /** What top-k, top-p and min-p leave, likeliest first and the lower index first among equals. */
  #kept(top) {
    const { topK, topP, minP } = this.#options;
    const logits = this.#logits;
    let kept = Uint32Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
    if (topK > 0) kept = kept.subarray(0, topK);
    if (topP < 1) {
      let whole = 0;
      for (const token of kept) whole += Math.exp(logits[token] - top);
      let reached = 0;
      const last = kept.findIndex((token) => (reached += Math.exp(logits[token] - top)) >= topP * whole);
      if (last >= 0) kept = kept.subarray(0, last + 1);
    }
    if (minP > 0) {
      const first = kept.findIndex((token) => top - logits[token] > -Math.log(minP));
      if (first >= 0) kept = kept.subarray(0, first);
    }
    return kept;
  }
}

/** The index of the largest, the lowest among equals; that of the first NaN, if there is one. */
function argmax(values) {
  let best = 0;
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) return i;
    if (values[i] > values[best]) best = i;
  }
  return best;
}
