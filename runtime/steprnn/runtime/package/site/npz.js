// Reads a NumPy .npz file: a zip of .npy files, as np.savez writes it (stored) or np.savez_compressed. It may
// come from a stranger: no more is unpacked than the caller could mean.

import { BundleError } from "./errors.js";

const MOST_ARRAYS = 4096;
const MOST_HEADER = 2 ** 16; // of an array
const TYPES = { "<f4": Float32Array, "|u1": Uint8Array };

/**
 * The arrays of a file, by name.
 * @param {Uint8Array} bytes
 * @param {string} file for the error
 * @param {number} most bytes of all arrays together
 * @returns {Promise<Map<string, {shape: number[], data: Float32Array | Uint8Array}>>}
 */
export async function readNpz(bytes, file, most) {
  try {
    const arrays = new Map();
    for (const [name, content] of await entries(bytes, most)) {
      arrays.set(name.replace(/\.npy$/, ""), readNpy(content));
    }
    return arrays;
  } catch (error) {
    throw new BundleError("damaged", `${file} is not an .npz file that this page reads (${error.message})`, {
      file,
    });
  }
}

/** The directory stands at the end of a zip; sizes of a streamed entry stand nowhere else. */
async function entries(bytes, most) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("it has no zip directory");
  const found = new Map();
  let at = view.getUint32(end + 16, true);
  const count = view.getUint16(end + 10, true);
  if (count > MOST_ARRAYS) throw new Error(`it holds ${count} arrays, expected at most ${MOST_ARRAYS}`);
  let left = most;
  for (let i = count; i > 0; i--) {
    const method = view.getUint16(at + 10, true);
    const size = view.getUint32(at + 20, true);
    const [name, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const packed = bytes.subarray(start, start + size);
    if (method !== 0 && method !== 8) throw new Error(`zip method ${method}`);
    const stream = new Blob([packed]).stream();
    const plain = method === 0 ? stream : stream.pipeThrough(new DecompressionStream("deflate-raw"));
    const content = await read(plain, left + MOST_HEADER, most);
    left -= Math.max(content.length - MOST_HEADER, 0);
    const key = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + name));
    if (found.has(key)) throw new Error(`it holds ${key} twice`);
    found.set(key, content);
    at += 46 + name + extra + comment;
  }
  return found;
}

/** What a stream holds, which is given up once it has more than `limit` bytes. */
async function read(stream, limit, most) {
  const chunks = [];
  let length = 0;
  const reader = stream.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    length += part.value.length;
    if (length > limit) {
      reader.cancel().catch(() => {});
      throw new Error(`it holds more than the ${most} bytes of arrays that the manifest tells of`);
    }
    chunks.push(part.value);
  }
  return joined(chunks, length);
}

/** The bytes of chunks one after the other. */
export function joined(chunks, length) {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (String.fromCharCode(...bytes.subarray(1, 6)) !== "NUMPY") throw new Error("an entry is no .npy file");
  const [start, length] = bytes[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, start + length));
  const type = /'descr': '([^']+)'/.exec(header)?.[1];
  const shape = /'shape': \(([^)]*)\)/.exec(header)?.[1];
  const Type = TYPES[type];
  if (!Type || shape === undefined || !header.includes("'fortran_order': False")) {
    throw new Error(`an array of ${type ?? "no type"}`);
  }
  const sizes = shape.split(",").filter((n) => n.trim()).map(Number);
  const data = new Type(bytes.slice(start + length).buffer);
  if (data.length !== sizes.reduce((a, b) => a * b, 1)) throw new Error("an array of another size");
  return { shape: sizes, data };
}
