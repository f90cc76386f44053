// A session: one stream of steps and the state it owns.

import { inTurn } from "./engine.js";
import { NotFinite, StateError, UsageError } from "./errors.js";

const ARRAYS = { float32: Float32Array, int32: Int32Array };

/** Steps a model with a state of its own; made by `model.session()`. */
export class Session {
  #model;
  #engine;
  #tensors = {};
  #steps = 0;

  constructor(model, engine, state) {
    this.#model = model;
    this.#engine = engine;
    if (state === undefined) this.reset();
    else this.state = state;
  }

  /** A copy of the states: the model they belong to, and float32 values by name. */
  get state() {
    const tensors = {};
    for (const [name, tensor] of Object.entries(this.#tensors)) tensors[name] = tensor.data.slice();
    return { model: this.#model.manifest.model, tensors };
  }

  /** Go on from a state; throws `StateError` where it belongs to another model. */
  set state(state) {
    const { model, step } = this.#model.manifest;
    if (state?.model !== model) {
      const message = `this state belongs to model ${String(state?.model).slice(0, 12)}, not to ${model.slice(0, 12)}`;
      throw new StateError("state", `${message}; load the bundle it was made with`);
    }
    const names = step.states.map((s) => s.name);
    const given = Object.keys(state.tensors ?? {});
    if (String([...given].sort()) !== String([...names].sort())) {
      throw new StateError("state", `this state has ${given}, expected ${names}`);
    }
    const tensors = {};
    for (const { name, shape } of step.states) {
      const values = Float32Array.from(state.tensors[name]);
      const size = product(shape);
      const bad = values.find((v) => !Number.isFinite(v));
      if (bad !== undefined) {
        throw new StateError("state", `state ${name} holds ${bad}, from which no stream goes on; begin again`);
      }
      if (values.length !== size) {
        throw new StateError("state", `state ${name} has ${values.length} values, expected ${size}`);
      }
      tensors[name] = this.#engine.tensor("float32", values, shape);
    }
    this.#tensors = tensors;
    this.#steps = 0;
  }

  /** Back to the beginning of a stream. */
  reset() {
    this.state = { model: this.#model.manifest.model, tensors: this.#model.initialState };
  }

  /** A session that goes on from here on its own. */
  fork() {
    return new Session(this.#model, this.#engine, this.state);
  }

  /**
   * Take one time step. Calls are carried out one after the other, whether they are awaited or not.
   * Throws `NotFinite` where an output is NaN or a next state NaN or infinite; the state stays as it was.
   * @param {number | ArrayLike<number> | Record<string, number | ArrayLike<number>>} x a token index; or the
   *   values of an input, flat; or an object of them by name where the model has several inputs
   * @returns {Promise<Float32Array | Record<string, Float32Array>>} the output, or outputs by name
   */
  async step(x) {
    const { inputs, outputs } = this.#model.manifest.step;
    const fed = this.#feeds(inputs, x);
    const results = await inTurn(async () => {
      const run = await this.#engine.run({ ...fed, ...this.#tensors });
      this.#steps++;
      this.#checkFinite(run, outputs);
      for (const name of Object.keys(this.#tensors)) this.#tensors[name] = run[`next_${name}`];
      return run;
    });
    if (outputs.length === 1) return results[outputs[0].name].data;
    return Object.fromEntries(outputs.map(({ name }) => [name, results[name].data]));
  }

  #checkFinite(run, outputs) {
    const told = (what) => new NotFinite(what, this.#model.manifest.model, this.#steps);
    for (const name of Object.keys(this.#tensors)) {
      const bad = run[`next_${name}`].data.find((v) => !Number.isFinite(v));
      if (bad !== undefined) throw told(`state ${name} holds ${bad}`);
    }
    for (const { name } of outputs) {
      // Infinity may be meant, as the logarithm of nothing is.
      if (run[name].data.some(Number.isNaN)) throw told(`output ${name} holds NaN`);
    }
  }

  #feeds(inputs, x) {
    const byName = typeof x === "object" && x !== null && x.length === undefined;
    const given = byName ? x : { [inputs[0].name]: x };
    const names = inputs.map((input) => input.name);
    if (String(Object.keys(given).sort()) !== String([...names].sort())) {
      throw new UsageError("input", `got inputs ${Object.keys(given)}, expected ${names}`);
    }
    const fed = {};
    for (const { name, dtype, shape, tokens } of inputs) {
      const values = typeof given[name] === "number" ? [given[name]] : Array.from(given[name]);
      const size = product(shape);
      if (values.length !== size) {
        throw new UsageError("input", `input ${name} has ${values.length} values, expected ${size}`);
      }
      const fits = (v) => typeof v === "number" && (dtype === "float32" || (Number.isInteger(v) && v === (v | 0)));
      if (!values.every(fits)) throw new UsageError("input", `input ${name} has a value that is no ${dtype}`);
      if (tokens !== undefined && !values.every((v) => v >= 0 && v < tokens)) {
        throw new UsageError("input", `input ${name} has a token outside 0..${tokens - 1}: ${values}`);
      }
      fed[name] = this.#engine.tensor(dtype, ARRAYS[dtype].from(values), shape);
    }
    return fed;
  }
}

function product(shape) {
  return shape.reduce((a, b) => a * b, 1);
}
