// The page as a whole: who is signed in, the list, and what is said about both.

import { ask, ended, Refused } from "./api.js";
import { Job } from "./job.js";
import { Live } from "./live.js";
import { clean } from "./words.js";

const $ = (id) => document.getElementById(id);
const jobs = new Map();
let session = null;
let order = [];
let first = true;

const desk = {
  printers: () => ask("GET", "printers"),
  confirm(text) {
    $("confirm-text").textContent = text;
    const dialog = $("confirm");
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  },
  changed(view) {
    jobs.get(view.id)?.update(view);
    arrange(order);
  },
  say(text) {
    $("news").textContent = text;
  },
};

const live = new Live({
  onList(list) {
    const news = [];
    const shown = list.jobs.map((view) => {
      let job = jobs.get(view.id);
      if (!job) {
        jobs.set(view.id, (job = new Job(view, desk)));
        if (!first) news.push(`New: ${job.news}`);
      } else if (job.update(view)) news.push(job.news);
      return job;
    });
    const here = new Set(shown);
    for (const [id, job] of jobs) if (!here.has(job)) jobs.delete(id);
    arrange((order = shown));
    first = false;
    if (news.length) desk.say(news.slice(0, 3).join(" "));
  },
  onAway(sentence, seconds) {
    const wait = Math.round(seconds);
    $("away-text").textContent = `${clean(sentence, 1000)} Trying again ${wait > 1 ? `in ${wait} seconds` : "in a moment"}. Your jobs are safe.`;
    $("away").hidden = false;
  },
  onBack() {
    $("away").hidden = true;
    desk.say("Pullprint can be reached again.");
  },
});

/** Put the cards into their lists in the server's order; the focus stays where it is, or as near as can be. */
function arrange(shown) {
  const active = document.activeElement;
  const card = active?.closest(".job");
  const waiting = shown.filter((job) => !job.ended);
  const past = shown.filter((job) => job.ended);
  place($("waiting"), waiting);
  place($("ended"), past);
  $("empty").hidden = waiting.length > 0;
  $("earlier").hidden = past.length === 0;
  const ready = waiting.length;
  $("summary").textContent = ready === 1 ? "One job waits for you." : `${ready} jobs wait for you.`;
  $("summary").hidden = !ready;
  if (!card || document.activeElement === active) return;
  if (active.checkVisibility()) active.focus();
  else (card.isConnected ? card.querySelector(".title") : $("desk-title")).focus();
}

function place(list, shown) {
  const wanted = new Set(shown.map((job) => job.node));
  for (const node of [...list.children]) if (!wanted.has(node)) node.remove();
  shown.forEach((job, n) => {
    if (list.children[n] !== job.node) list.insertBefore(job.node, list.children[n] ?? null);
  });
}

function show(id) {
  for (const part of ["loading", "entry", "desk"]) $(part).hidden = part !== id;
  $("account").hidden = id !== "desk";
}

function enter(next) {
  // Whoever comes back finds what they had typed; somebody else finds nothing of it.
  if (session && (session.user !== next.user || session.organisation !== next.organisation)) forget();
  session = { user: next.user, organisation: next.organisation };
  $("user").textContent = clean(next.user, 80);
  $("organisation").textContent = clean(next.organisation, 80);
  show("desk");
  live.start();
}

function forget() {
  jobs.clear();
  for (const id of ["waiting", "ended"]) $(id).replaceChildren();
  $("claim").reset();
  desk.say("");
  $("confirm-text").textContent = "";
  session = null;
  first = true;
}

function signIn(reason) {
  live.stop();
  $("away").hidden = true;
  if ($("confirm").open) $("confirm").close("no");
  show("entry");
  problem($("sign-in"), reason);
  const { name, password } = $("sign-in").elements;
  (name.value ? password : name).focus();
}

function problem(form, text) {
  const line = form.querySelector(".problem");
  line.textContent = clean(text, 1000);
  line.hidden = !text;
}

/** Run `work` for a form once at a time; its failure is told in the form. */
function onSubmit(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button:not([type=button])");
    if (button.disabled) return;
    button.disabled = true;
    problem(form, "");
    try {
      await work(form.elements);
    } catch (error) {
      problem(form, error.message);
    } finally {
      button.disabled = false;
    }
  });
}

onSubmit($("sign-in"), async ({ name, password, organisation }) => {
  if (!name.value.trim() || !password.value) throw new Error("Type your name and your password.");
  const body = { name: name.value.trim(), password: password.value, organisation: organisation.value.trim() };
  const next = await ask("POST", "session", body);
  password.value = "";
  enter(next);
  $("desk-title").focus();
});

onSubmit($("claim"), async ({ code }) => {
  if (!code.value.trim()) throw new Error("Type the code that the job’s sender was shown.");
  const view = await ask("POST", "claim", { code: code.value.trim() });
  code.value = "";
  live.hurry();
  desk.say(`${clean(view.title, 60)} is yours now.`);
});

$("sign-out").addEventListener("click", async () => {
  try {
    await ask("DELETE", "session");
  } catch (error) {
    if (!(error instanceof Refused && error.status === 401)) {
      live.onAway(`You are still signed in: ${error.message}`, 0);
      return;
    }
  }
  forget();
  $("sign-in").reset();
  signIn("");
});

$("try-now").addEventListener("click", () => (session ? live.hurry() : begin()));

ended.addEventListener("ended", () => {
  if (session && $("entry").hidden) signIn("Your session has ended. Sign in again; your jobs are still held.");
});

setInterval(() => {
  for (const job of jobs.values()) job.draw();
}, 30_000);

let pause = 1;
let retry;

async function begin() {
  clearTimeout(retry);
  try {
    enter(await ask("GET", "session"));
    $("away").hidden = true;
  } catch (error) {
    if (error instanceof Refused && error.status === 401) {
      $("away").hidden = true;
      signIn("");
    } else {
      live.onAway(error.message, pause);
      retry = setTimeout(begin, pause * 1000);
      pause = Math.min(30, pause * 2);
    }
  }
}

begin();
