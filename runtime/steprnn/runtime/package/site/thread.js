// Asks the model in a thread of its own; in this one where a browser has no threads for modules.

import { ASKED } from "./writer.js";

const waiting = new Map(); // by the number of the question
let asked = 0;
let thread = null;

try {
  thread = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  thread.onmessage = ({ data: { id, result, error, progress } }) => {
    const { resolve, reject, told } = waiting.get(id);
    if (progress) return told?.(...progress);
    waiting.delete(id);
    if (error) reject(Object.assign(new Error(error.message), error));
    else resolve(result);
  };
  thread.onerror = () => {
    // It did not begin, or it broke: what it was asked goes to this thread.
    thread = null;
    for (const { again } of waiting.values()) again();
    waiting.clear();
  };
} catch {
  // no threads here
}

/** Ask for one of `ASKED`; `told` hears how far a loading is. */
export function ask(what, question, told) {
  if (!thread) return Promise.resolve().then(() => ASKED[what](question, told));
  return new Promise((resolve, reject) => {
    const id = ++asked;
    const again = () => ask(what, question, told).then(resolve, reject);
    waiting.set(id, { resolve, reject, told, again });
    thread.postMessage({ id, what, asked: question });
  });
}
