/** Types of steprnn.js: a bundle of steprnn in the browser. */

export type Variant = "float32" | "float16" | "int8" | "int8-weights";

export interface LoadOptions {
  /** Which weights; "float32" by default. The bundle must hold that graph in ONNX. */
  variant?: Variant;
  /** Folder of onnxruntime-web's files, `ort/` beside the module by default; or the module, imported. */
  engine?: string | URL | { readonly InferenceSession: unknown };
  /** What brings the files, instead of `fetch`. */
  fetch?: (url: URL, options: object) => Promise<Response>;
  /** Gives the loading up. */
  signal?: AbortSignal;
  /** Called as the graph arrives, with bytes so far and of how many. */
  progress?: (bytes: number, of: number) => void;
}

export interface StreamOptions {
  /** Characters to write, 50 by default; Infinity goes on until it is stopped. */
  length?: number;
  /** 0, the default, takes the likeliest (greedy); below 1 is sharper, above 1 flatter. */
  temperature?: number;
  /** Draw from the k likeliest; 0 is off. */
  topK?: number;
  /** Draw from the likeliest that sum to p; 1 is off. */
  topP?: number;
  /** Leave out those below p times the likeliest; 0 is off. */
  minP?: number;
  /** Make recent characters less likely; 1 is off. */
  repeatPenalty?: number;
  /** How many characters are recent; 64 by default. */
  repeatLastN?: number;
  /** Makes the draw repeatable, and equal to Python's. A whole number, at least 0; a BigInt above 2^53. */
  seed?: number | bigint;
  /** End before the first of these texts. */
  stop?: string | readonly string[];
  /** What to do with characters of the prompt that the model does not know; "error" by default. */
  unknown?: "error" | "skip";
  /** Ends the stream with the signal's reason. */
  signal?: AbortSignal;
}

export interface TensorSpec {
  readonly name: string;
  readonly dtype: "float32" | "int32";
  /** Without the batch axis. */
  readonly shape: readonly number[];
  /** Of an input that is a token index: how many tokens there are. */
  readonly tokens?: number;
  /** Of a state: its name after a step. */
  readonly next?: string;
}

export interface Artefact {
  readonly name: string;
  readonly format: string;
  readonly variant: string;
  readonly method: string;
  readonly path: string;
}

export interface Manifest {
  readonly format: "steprnn.bundle";
  readonly version: 1;
  readonly model: string;
  readonly step: {
    readonly inputs: readonly TensorSpec[];
    readonly states: readonly TensorSpec[];
    readonly outputs: readonly TensorSpec[];
  };
  readonly artefacts: readonly Artefact[];
  readonly files: Readonly<Record<string, { readonly bytes: number; readonly sha256: string }>>;
  readonly about: Readonly<Record<string, unknown>>;
}

/** The states of a stream between two steps, bound to the model they came from; can be cloned and stored. */
export interface State {
  model: string;
  tensors: Record<string, Float32Array>;
}

export type Values = number | ArrayLike<number>;

/** One stream of steps and the state it owns; made by `Model.session`. */
export class Session {
  private constructor();
  /** A copy; setting it throws `StateError` where it belongs to another model. */
  get state(): State;
  set state(state: State);
  /** Back to the beginning of a stream. */
  reset(): void;
  /** A session that goes on from here on its own. */
  fork(): Session;
  /**
   * Take one time step: a token index, or the flat values of the input, or an object of them by name. Gives
   * the output, or outputs by name where the model has several.
   */
  step<T extends Float32Array | Record<string, Float32Array> = Float32Array>(
    x: Values | Readonly<Record<string, Values>>,
  ): Promise<T>;
}

/** A loaded step graph with its vocabulary; made by `load`. */
export class Model {
  private constructor();
  readonly manifest: Manifest;
  readonly artefact: Artefact;
  /** What runs the step, with its version. */
  readonly engine: string;
  /** The character of each token, or a name of its byte; null where the bundle has none. */
  readonly vocabulary: readonly string[] | null;
  /** What a token is; null where the bundle has no vocabulary. */
  readonly unit: "character" | "byte" | null;
  readonly initialState: Readonly<Record<string, Float32Array>>;
  /** A stream of its own, from a state or from the beginning. */
  session(state?: State): Session;
  /** The prompt and what follows it. */
  generate(prompt: string, options?: StreamOptions): Promise<string>;
  /** What follows the prompt, a character at a time. Options that cannot be meant throw at once. */
  stream(prompt: string, options?: StreamOptions): AsyncGenerator<string, void, void>;
  /** Token indices of a text; throws `UnknownToken`. */
  encode(text: string, unknown?: "error" | "skip"): number[];
  /** Free the model's memory; it cannot be used after that. */
  dispose(): Promise<void>;
}

/** Load a bundle from its folder, or from where each of its files is. Throws `BundleError`, `EngineError` or `UsageError`. */
export function load(url: string | URL | ((name: string) => URL), options?: LoadOptions): Promise<Model>;

/** What this library throws; `message` is one line: what, got, expected, and the fix. */
export class SteprnnError extends Error {
  constructor(code: string, message: string, details?: Record<string, unknown>);
  /** A word that does not change, such as "missing". */
  readonly code: string;
  /** What the message names. */
  readonly details: Readonly<Record<string, unknown>>;
}
/** An argument that cannot be meant. */
export class UsageError extends SteprnnError {}
/** A text with characters that are not in the vocabulary. */
export class UnknownToken extends UsageError {}
/** A file of the bundle is missing, damaged, altered or too new. */
export class BundleError extends SteprnnError {}
/** A state that belongs to another model, or has another shape. */
export class StateError extends SteprnnError {}
/** onnxruntime-web cannot be loaded here, or refuses the graph. */
export class EngineError extends SteprnnError {}
