// Which view an address stands for; the browser's Back goes one view, or one open sheet, back.

const ROUTES = [
  [/^\/p\/([0-9a-z-]{1,64})\/?$/i, "here"],
  [/^\/login\/?$/, "login"],
  [/^\/claim\/?$/, "claim"],
  [/^\/history\/?$/, "history"],
  [/^\/account\/?$/, "account"],
  [/^\/site\/?$/, "site"],
  [/^\/(share\/?)?$/, "home"],
];

const sheets = [];
// Going back takes the browser a moment; what must come after it waits here.
let queue = null;
const whenStill = (work) => (queue ? queue.push(work) : work());
let shown = "";
let show = () => {};

/** The view of an address, and what is in it; null for one that the page does not have. */
export function match(path) {
  for (const [pattern, name] of ROUTES) {
    const found = pattern.exec(path);
    if (found) return { name, id: found[1] ?? "" };
  }
  return null;
}

/** `onView({name, id, query})` now and whenever the address becomes another view's. */
export function start(onView) {
  show = () => {
    const address = location.pathname + location.search;
    if (address === shown) return;
    shown = address;
    onView({ ...(match(location.pathname) ?? { name: "home", id: "" }), query: new URLSearchParams(location.search) });
  };
  addEventListener("popstate", (event) => {
    if (queue) {
      const works = queue;
      queue = null;
      for (const work of works) whenStill(work);
      // Whoever pressed Back at the same moment has gone further.
      if (!works.length) show();
      return;
    }
    const depth = event.state?.sheets ?? 0;
    while (sheets.length > depth) sheets.pop()();
    show();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.defaultPrevented;
    if (!plain || !link || link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
    if (!match(link.pathname)) return;
    event.preventDefault();
    go(link.pathname + link.search);
  });
  show();
}

/** Go to a view; open sheets close. */
export function go(path, { replace = false } = {}) {
  whenStill(() => {
    const inSheet = sheets.length > 0;
    while (sheets.length) sheets.pop()();
    history[replace || inSheet ? "replaceState" : "pushState"](null, "", path);
    show();
  });
}

/** Draw the same view anew, as after signing in. */
export function again() {
  shown = "";
  show();
}

/** A sheet was opened: Back closes it by `close`. What is returned is to be called when it was closed otherwise. */
export function opened(close) {
  sheets.push(close);
  whenStill(() => history.pushState({ sheets: sheets.length }, ""));
  return () => {
    const place = sheets.indexOf(close);
    if (place < 0) return;
    sheets.splice(place, 1);
    whenStill(() => {
      queue = [];
      history.back();
    });
  };
}
