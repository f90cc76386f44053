// The thread that the model has for itself, so that typing never waits for a step.

import { ASKED } from "./writer.js";

self.onmessage = async ({ data: { id, what, asked } }) => {
  const progress = (...bytes) => self.postMessage({ id, progress: bytes });
  try {
    self.postMessage({ id, result: await ASKED[what](asked, progress) });
  } catch (error) {
    const { name, message, code, details } = error;
    self.postMessage({ id, error: { name, message, code, details } });
  }
};
