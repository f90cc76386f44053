// Every error a caller can meet. `code` and `details` let a page say it in another language.

/** What this library throws; `message` is one line: what, got, expected, and the fix. */
export class SteprnnError extends Error {
  /**
   * @param {string} code a word that does not change, such as "missing"
   * @param {string} message one line for people
   * @param {Record<string, unknown>} [details] what the message names
   */
  constructor(code, message, details = {}) {
    super(message);
    this.name = new.target.name;
    this.code = code;
    this.details = details;
  }
}

/** An argument that cannot be meant. */
export class UsageError extends SteprnnError {}

/** A text with characters that are not in the vocabulary. */
export class UnknownToken extends UsageError {}

/** A file of the bundle is missing, damaged, altered or too new. */
export class BundleError extends SteprnnError {}

/** A state that belongs to another model, or has another shape. */
export class StateError extends SteprnnError {}

/** A step gave NaN or infinity; `details` tells what, after how many steps, and of which model. */
export class NotFinite extends SteprnnError {
  constructor(what, model, steps) {
    const where = steps === undefined ? "" : ` after ${steps} steps of model ${model.slice(0, 12)}`;
    const message = `${what}${where}; expected finite numbers: look at its weights and at what went in`;
    super("not-finite", message, { what, model, steps });
  }
}

/** onnxruntime-web cannot be loaded here, or refuses the graph. */
export class EngineError extends SteprnnError {}
