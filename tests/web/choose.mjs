// Runs the page's sampling, npz, sha256 and manifests in Node: JSON in, JSON out. `node choose.mjs SITE < cases.json`
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const site = pathToFileURL(process.argv[2] + "/");
const { Sampler, DEFAULTS } = await import(new URL("sampling.js", site));
const { Random } = await import(new URL("random.js", site));
const { plain } = await import(new URL("sha256.js", site));
const { readNpz } = await import(new URL("npz.js", site));
const { Bundle, address } = await import(new URL("bundle.js", site));
const { until } = await import(new URL("stops.js", site));

const JOBS = {
  random({ seed, count }) {
    const random = new Random(BigInt(seed));
    return Array.from({ length: count }, () => random.next());
  },
  choose({ options, seed, recent, logits }) {
    const sampler = new Sampler({ ...DEFAULTS, ...options }, BigInt(seed), recent);
    return logits.map((row) => sampler.choose(Float32Array.from(row)));
  },
  sha256({ hex }) {
    return Buffer.from(plain(Uint8Array.from(Buffer.from(hex, "hex")))).toString("hex");
  },
  async npz({ hex, most }) {
    const arrays = await readNpz(Uint8Array.from(Buffer.from(hex, "hex")), "file.npz", most);
    return Object.fromEntries([...arrays].map(([name, { shape, data }]) => [name, [shape, [...data]]]));
  },
  async manifest({ record }) {
    globalThis.fetch = async () => new Response(JSON.stringify(record));
    const { manifest } = await Bundle.open((name) => address(name, "http://page.test/model/"));
    return Object.keys(manifest.files);
  },
  async longer({ record, size }) {
    let sent = 0;
    const pull = (stream) => stream.enqueue(new Uint8Array((sent += 65536) && 65536));
    const endless = () => new Response(new ReadableStream({ pull }));
    globalThis.fetch = async () => endless();
    const bundle = new Bundle((name) => address(name, "http://page.test/model/"), record);
    await bundle.read("file").catch((error) => error.code === "size" || Promise.reject(error));
    return sent <= size + 4 * 65536;
  },
  async until({ pieces, stops }) {
    const text = [];
    for await (const piece of until(pieces, stops)) text.push(piece);
    return text.join("");
  },
};

const results = [];
for (const { job, ...given } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    results.push(await JOBS[job](given));
  } catch (error) {
    results.push({ error: error.name, message: error.message });
  }
}
console.log(JSON.stringify(results));
