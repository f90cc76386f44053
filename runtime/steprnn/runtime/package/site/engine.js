// onnxruntime-web: one graph, stepped on one thread of wasm.

import { EngineError } from "./errors.js";

const MODULE = "ort.wasm.bundle.min.js";
const WASM = "ort-wasm-simd-threaded.wasm";

let last = Promise.resolve();

/** Run jobs one after the other: onnxruntime-web keeps its arguments on a stack that all runs share. */
export function inTurn(job) {
  const run = last.then(job);
  last = run.catch(() => {});
  return run;
}

/** An opened step graph. Tensors are bound by name. */
export class Engine {
  #ort;
  #session;

  constructor(ort, session) {
    this.#ort = ort;
    this.#session = session;
    this.name = `onnxruntime-web ${ort.env.versions.web}`;
  }

  /**
   * Open a graph; throws `EngineError` where there is no wasm or the graph is refused.
   * @param {Uint8Array} graph an ONNX file
   * @param {URL} folder where onnxruntime-web's two files are; ends in a slash
   */
  static async open(graph, folder) {
    if (typeof WebAssembly === "undefined") {
      throw new EngineError("no-wasm", "this browser has no WebAssembly, or it is switched off; allow it");
    }
    const ort = await importEngine(new URL(MODULE, folder));
    ort.env.wasm.wasmPaths = { wasm: new URL(WASM, folder).href };
    return Engine.of(ort, graph, new URL(WASM, folder));
  }

  /**
   * Open a graph in onnxruntime-web as somebody imported it.
   * @param {object} ort the module
   * @param {Uint8Array} graph an ONNX file
   * @param {URL} [wasm] where its wasm file should be
   */
  static async of(ort, graph, wasm) {
    ort.env.wasm.numThreads = 1; // a step is far too small to share out, and threads need special headers
    ort.env.logLevel = "error";
    try {
      const options = { executionProviders: ["wasm"] };
      return new Engine(ort, await inTurn(() => ort.InferenceSession.create(graph, options)));
    } catch (error) {
      throw await explain(error, wasm);
    }
  }

  /** A tensor of one row. */
  tensor(dtype, data, shape) {
    return new this.#ort.Tensor(dtype, data, [1, ...shape]);
  }

  /** One step; call it within `inTurn`. */
  run(feeds) {
    return this.#session.run(feeds);
  }

  /** Free the graph's memory. */
  release() {
    return inTurn(() => this.#session.release());
  }
}

async function importEngine(url) {
  try {
    return await import(url.href);
  } catch (error) {
    throw new EngineError("engine-missing", `${MODULE} cannot be loaded (${error.message}); copy the folder`, {
      file: MODULE,
    });
  }
}

/** onnxruntime-web says the same of a wasm file that is not there and of one that is broken. */
async function explain(error, wasm) {
  const said = String(error?.message ?? error).split("\n")[0];
  if (!said.includes("no available backend")) {
    return new EngineError("refused", `onnxruntime-web refuses the graph: ${said}`, { said });
  }
  if (!wasm) return new EngineError("wasm", `${WASM} does not start here: ${said}`, { file: WASM, said });
  const answer = await fetch(wasm, { method: "HEAD" }).catch(() => null);
  if (answer?.ok) {
    return new EngineError("wasm", `${WASM} does not start in this browser: ${said}`, { file: WASM, said });
  }
  const status = answer ? `HTTP status ${answer.status}` : "no answer";
  return new EngineError("engine-missing", `${WASM} is missing (${status}); copy the whole folder`, {
    file: WASM,
  });
}
