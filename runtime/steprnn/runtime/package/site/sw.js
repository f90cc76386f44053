// Keeps the page for when there is no network. With one, the network answers as if this were not here: what
// stands at an address today may be another model, or another program, than the one that was kept.

const VERSION = ""; // of all files together; `steprnn package` writes both lines
const FILES = [];
const OURS = `steprnn ${self.registration.scope} `; // several pages may share an origin
const NAME = OURS + VERSION;
const KEPT = new Set(FILES.map((file) => new URL(file, self.registration.scope).href));

self.addEventListener("install", (event) => {
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(
    caches
      .open(NAME)
      .then((cache) => cache.addAll(requests))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  const old = (name) => name.startsWith(OURS) && name !== NAME;
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter(old).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !KEPT.has(request.url.replace(/[?#].*$/, ""))) return;
  event.respondWith(fetch(request).catch((error) => kept(request, error)));
});

async function kept(request, error) {
  const cache = await caches.open(NAME);
  const found = await cache.match(request, { ignoreSearch: true });
  if (!found) throw error;
  return found;
}
