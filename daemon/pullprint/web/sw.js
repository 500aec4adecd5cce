// The page's shell, at hand when the network is slow or away; and what another app shares with it. Never the API.

// Served, this names the version (cloud/page.py), so that a new one is another worker.
const STATIC = "/static/";
const SHELL = `pullprint-shell ${STATIC}`;
const SHARED = "pullprint-shared";
const PATIENCE = 3_000;

/** index.html and what it names: the shell needs no list of its own. */
async function install() {
  const page = await fetch("/", { cache: "no-cache" });
  const text = await page.clone().text();
  const named = [...text.matchAll(/(?:href|src)="(\/static\/[^"]+)"/g)].map(([, path]) => path);
  const cache = await caches.open(SHELL);
  await cache.put("/", page);
  await cache.addAll([...new Set(named)]);
  await self.skipWaiting();
}

async function activate() {
  const old = (await caches.keys()).filter((name) => name.startsWith("pullprint-shell") && name !== SHELL);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

/** The page from the network, which may be newer; from the cache when that takes too long. */
async function view(request) {
  const kept = await caches.match("/");
  const fresh = fetch(request).catch((error) => {
    if (kept) return kept.clone();
    throw error;
  });
  if (!kept) return fresh;
  const late = new Promise((resolve) => setTimeout(() => resolve(kept.clone()), PATIENCE));
  return Promise.race([fresh, late]);
}

/** A file of this version never changes; one of another is the network's business. */
async function file(request) {
  const kept = await caches.match(request);
  if (kept) return kept;
  const answer = await fetch(request);
  if (answer.ok && new URL(request.url).pathname.startsWith(STATIC)) (await caches.open(SHELL)).put(request, answer.clone());
  return answer;
}

/** Keep what was shared until somebody has said what is to become of it, and open the page. */
async function share(request) {
  const form = await request.formData();
  const cache = await caches.open(SHARED);
  const files = form.getAll("files").filter((entry) => entry instanceof File);
  if (!files.length) {
    const text = ["title", "text", "url"].map((name) => form.get(name)).filter(Boolean).join("\n");
    if (text) files.push(new File([text], `${(form.get("title") || "Text").slice(0, 60)}.txt`, { type: "text/plain" }));
  }
  for (const each of files) {
    const headers = { "Content-Type": each.type || "application/octet-stream", "X-Name": encodeURIComponent(each.name), "X-Kept": Date.now() };
    await cache.put(`/shared/${crypto.randomUUID()}`, new Response(each, { headers }));
  }
  return Response.redirect("/share", 303);
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== location.origin || url.pathname.startsWith("/api/")) return;
  if (request.method === "POST" && url.pathname === "/share") event.respondWith(share(request));
  else if (request.method !== "GET") return;
  else if (request.mode === "navigate") event.respondWith(view(request));
  else if (url.pathname.startsWith("/static/")) event.respondWith(file(request));
});
