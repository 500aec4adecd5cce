// The page as a whole: who is signed in, which view is shown, and what is said about both.

import { ask, askedEarly, ended, Refused } from "./api.js";
import { h, icon, toast } from "./dom.js";
import { _, ready, translatePage } from "./i18n.js";
import { Jobs } from "./jobs.js";
import { again, go, start } from "./router.js";
import { clean, titleOf } from "./words.js";
import * as home from "./views/home.js";

const $ = (id) => document.getElementById(id);
const SHARED = "pullprint-shared";
const SHARED_LIFE = 600_000;
const RETRY_CAP = 30;
const TOKEN = /^#([\w-]{16,})$/;
const main = $("main");

const app = {
  session: null,
  live: null,
  printers: new EventTarget(),
  install: null,
  uploads: h("ul", { class: "uploads" }),
  jobs: new Jobs((text) => app.say(text)),
  pictures: {
    /** The code for pictures comes after the page itself. */
    async show(id, place) {
      const { Pictures } = await app.load("../pictures");
      pictures ??= new Pictures();
      pictures.show(id, place);
    },
  },
  say(text) {
    $("news").textContent = text;
  },
  focus() {
    main.querySelector("h1")?.focus();
  },
  /** A view's module. One that is gone belongs to an older version of the page than the server's: start over, once. */
  async load(name) {
    try {
      return await import(`./views/${name}.js`);
    } catch (error) {
      const before = Number(sessionStorage.getItem("pullprint-reloaded"));
      if (navigator.onLine && Date.now() - before > 60_000) {
        sessionStorage.setItem("pullprint-reloaded", Date.now());
        location.reload();
      }
      toast(_("Pullprint cannot be reached."));
      throw error;
    }
  },
  async upload(files) {
    if (!files.length) return;
    const { Uploads } = await app.load("uploads");
    uploads ??= new Uploads(app.uploads, {
      onjob: (job) => toast(_("“{title}” waits for you.", { title: titleOf(job, 60) })),
    });
    for (const file of files) uploads.add(file);
  },
  enter,
  signOut,
};

let uploads = null;
let pictures = null;
let leave = () => {};
let retry = 0;
let pause = 1;
let current = null;

/** What keeps the list up to date; its code comes when there is something to keep so. */
async function startLive() {
  const { Live } = await app.load("../live");
  app.live ??= new Live({
    onList: (list) => app.jobs.receive(list),
    onPrinters: () => app.printers.dispatchEvent(new Event("change")),
    onAway: unreachable,
    onBack() {
      away("");
      app.say(_("Pullprint can be reached again."));
    },
  });
  if (app.session) app.live.start();
}

function unreachable(sentence, seconds) {
  const wait = Math.round(seconds);
  const when = wait > 1 ? _("Trying again in {wait} seconds.", { wait }) : _("Trying again in a moment.");
  away(`${sentence} ${when} ${_("Your jobs are safe.")}`);
}

function away(text) {
  $("away-text").textContent = clean(text, 1000);
  $("away").hidden = !text;
}

const titles = { home: () => _("Your jobs"), history: () => _("History"), account: () => _("Account"), site: () => _("Your office"), login: () => _("Sign in on another device"), claim: () => _("Is a job missing?"), here: () => _("Print here") };

async function show(view) {
  current = view;
  if (!app.session) return;
  const module = view.name === "home" ? home : await app.load(view.name);
  if (current !== view) return;
  const moved = main.dataset.view && main.dataset.view !== view.name;
  clear(view.name);
  document.title = `${titles[view.name]()} – Pullprint`;
  leave = module.open(app, main, view) ?? (() => {});
  navigate(view.name);
  if (moved) {
    scrollTo(0, 0);
    app.focus();
  }
  if (view.name === "home") takeShared();
}

function clear(name) {
  leave();
  leave = () => {};
  main.replaceChildren();
  main.className = "";
  main.dataset.view = name;
}

function navigate(name) {
  const item = (view, path, words, shape) =>
    h("a", { href: path, "aria-current": name === view ? "page" : undefined }, icon(shape), h("span", {}, words));
  const scanner = "BarcodeDetector" in globalThis && h("button", { type: "button", onclick: async () => {
    const { scan } = await app.load("scan");
    scan(app, (id) => go(`/p/${id}`));
  } }, icon("scan"), h("span", {}, _("Scan")));
  $("nav").replaceChildren(...[item("home", "/", _("Jobs"), "jobs"), scanner, item("history", "/history", _("History"), "history"), item("account", "/account", _("Account"), "person")].filter(Boolean));
  $("top").hidden = false;
}

function enter(session) {
  // Whoever comes back finds all as it was; somebody else finds nothing of it.
  if (app.session && (app.session.user !== session.user || app.session.organisation !== session.organisation)) return location.reload();
  const back = app.session !== null;
  app.session = { user: session.user, organisation: session.organisation };
  away("");
  if (!back) again();
  startLive();
}

async function askToSignIn() {
  app.live?.stop();
  away("");
  const signin = await app.load("signin");
  if (app.session) {
    if (!document.querySelector("dialog.over")) signin.over(app, app.session.user);
    return;
  }
  $("top").hidden = true;
  clear("signin");
  document.title = `${_("Sign in")} – Pullprint`;
  signin.open(app, main);
}

async function signOut(what) {
  await app.jobs.finish();
  try {
    await ask("DELETE", what);
  } catch (error) {
    if (!(error instanceof Refused && error.status === 401)) return toast(_("You are still signed in: {reason}", { reason: error.message }));
  }
  localStorage.removeItem("pullprint-name");
  await globalThis.caches?.delete(SHARED);
  app.jobs.forget();
  location.replace("/");
}

/** What another app on this device shared with the page: sw.js keeps it until here. Any page can send something that way,
 *  so it becomes a job only when somebody says so; and it is not kept for whoever comes later. */
async function takeShared() {
  if (location.pathname.startsWith("/share")) go("/", { replace: true });
  const cache = await globalThis.caches?.open(SHARED).catch(() => null);
  const found = [];
  for (const request of (await cache?.keys()) ?? []) {
    const kept = await cache.match(request);
    if (Date.now() - Number(kept.headers.get("X-Kept")) > SHARED_LIFE) await cache.delete(request);
    else found.push([request, new File([await kept.blob()], decodeURIComponent(kept.headers.get("X-Name") ?? ""), { type: kept.headers.get("Content-Type") ?? "" })]);
  }
  shared?.remove();
  if (!found.length) return;
  const settle = async (wanted) => {
    shared?.remove();
    for (const [request, file] of found) {
      // Of several open pages one takes it.
      if (await cache.delete(request) && wanted) app.upload([file]);
    }
  };
  const names = found.map(([, file]) => clean(file.name, 60) || _("Untitled")).join(", ");
  shared = h("li", { class: "upload shared" },
    h("span", { class: "names" }, h("bdi", {}, names), h("small", {}, _("was shared with this page by another app."))),
    h("div", { class: "buttons even" },
      h("button", { type: "button", onclick: () => settle(false) }, _("Discard")),
      h("button", { type: "button", class: "primary", onclick: () => settle(true) }, _("Add"))));
  app.uploads.prepend(shared);
}
let shared = null;

function dropAnywhere() {
  let depth = 0;
  const over = (by) => {
    depth = by ? Math.max(0, depth + by) : 0;
    document.body.classList.toggle("dropping", depth > 0);
  };
  const withFiles = (work) => (event) => {
    if (!app.session || ![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault();
    work(event);
  };
  addEventListener("dragenter", withFiles(() => over(1)));
  addEventListener("dragleave", withFiles(() => over(-1)));
  addEventListener("dragover", withFiles(() => {}));
  addEventListener("drop", withFiles((event) => {
    over(0);
    if (main.dataset.view !== "home") go("/");
    app.upload([...event.dataTransfer.files]);
  }));
}

/** An administrator's link is for whoever has it, signed in or not. Its token leaves the address bar at once, and stays
 *  with this entry of the history so that the page can be loaded again. */
async function welcome() {
  const token = TOKEN.exec(location.hash)?.[1];
  if (token) history.replaceState({ token }, "", location.pathname);
  const [{ open }] = await Promise.all([app.load("welcome"), ready]);
  translatePage();
  await open(app, main, clear);
  away("");
}

let first = true;

async function begin() {
  clearTimeout(retry);
  try {
    if (location.pathname === "/welcome") return await welcome();
    const [session, list] = await Promise.all([...(first ? ["session", "jobs"].map(askedEarly) : [ask("GET", "session")]), ready]);
    if (list) app.jobs.receive(list);
    first = false;
    translatePage();
    enter(session);
  } catch (error) {
    await ready;
    translatePage();
    if (error instanceof Refused && error.status === 401) return askToSignIn();
    main.querySelector(".skeleton")?.remove();
    unreachable(error.message, pause);
    retry = setTimeout(begin, pause * 1000);
    pause = Math.min(RETRY_CAP, pause * 2);
  }
}

$("try-now").addEventListener("click", () => (app.session && app.live ? app.live.hurry() : begin()));
ended.addEventListener("ended", () => app.session && askToSignIn());
addEventListener("hashchange", () => location.pathname === "/welcome" && TOKEN.test(location.hash) && begin());
addEventListener("beforeinstallprompt", (event) => {
  event.preventDefault();
  app.install = event;
});
addEventListener("load", () => navigator.serviceWorker?.register("/sw.js").catch(() => {}));
dropAnywhere();
start(show);
begin();
