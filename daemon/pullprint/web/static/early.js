// Asks for what the first view shows while the page's code is still on its way: see `askedEarly` in api.js.

globalThis.early = Object.fromEntries(
  ["session", "jobs"].map((path) => [path, fetch(`/api/v1/${path}`, { cache: "no-store" }).catch(() => null)]),
);
