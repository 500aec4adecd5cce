// A list of jobs to choose from, and the bar at the thumb that does something with those that are chosen. A job's card
// stays the same element while it changes, so that focus and selection stay too.

import { arrange, h, icon, problemLine } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { clean, copiesOf, ENDED, endOf, factsOf, pagesOf, stateOf, storyOf, titleOf, waitOf } from "../words.js";

const MOST_DOTS = 7;

export class List {
  #cards = new Map();
  #picked = new Set();
  #bar = document.getElementById("bar");

  /** `print(jobs)` is what the bar's button does, `verb(jobs)` its words, `before` the buttons in front of it; `each`: every
   *  card has a button of its own, too; `ended(job)`: which jobs that ended are shown. */
  constructor(app, { print, each = false, verb, before, ended = () => true }) {
    this.app = app;
    this.shows = ended;
    this.each = each;
    this.printJobs = print;
    this.jobs = app.jobs;
    this.pictures = app.pictures;
    this.waiting = h("ul", { class: "cards", "aria-label": _("Waiting jobs") });
    this.ended = h("ul", { class: "cards past" });
    this.all = h("button", { type: "button", class: "quiet", onclick: () => this.#pickAll() });
    this.verb = verb ?? ((jobs) => ngettext("Print {n} job", "Print {n} jobs", jobs.length));
    this.print = h("button", { type: "button", class: "primary", onclick: () => print(this.picked) });
    this.none = h("button", { type: "button", class: "quiet square", "aria-label": _("Choose none"), onclick: () => this.pick([]) }, icon("close"));
    this.bin = h("button", { type: "button", class: "quiet square", "aria-label": _("Delete"), onclick: () => this.remove(this.picked) }, icon("trash"));
    this.bar = h("div", { class: "bar", role: "region", "aria-label": _("Chosen jobs") }, before ?? [this.none, this.bin], this.print);
    this.#bar.replaceChildren(this.bar);
    this.bar.hidden = true;
  }

  /** The chosen jobs, oldest first: in the order in which they were sent. */
  get picked() {
    return this.jobs.waiting.filter((job) => this.#picked.has(job.id) && this.jobs.canPrint(job)).reverse();
  }

  isPicked(id) {
    return this.#picked.has(id);
  }

  toggle(id) {
    if (!this.#picked.delete(id)) this.#picked.add(id);
    this.draw();
  }

  pick(ids) {
    this.#picked = new Set(ids);
    this.draw();
  }

  remove(jobs) {
    const gone = new Set(jobs.map((job) => job.id));
    const shown = this.jobs.waiting;
    const place = shown.findIndex((job) => gone.has(job.id));
    this.#picked = new Set([...this.#picked].filter((id) => !gone.has(id)));
    this.jobs.remove(jobs);
    const next = this.jobs.waiting[Math.min(place, this.jobs.waiting.length - 1)];
    (this.#cards.get(next?.id) ?? this.app).focus();
  }

  async details(job) {
    (await this.app.load("details")).open(this.app, job.id);
  }

  draw() {
    const { waiting } = this.jobs;
    const ended = this.jobs.ended.filter(this.shows);
    const here = new Set([...waiting, ...ended].map((job) => job.id));
    for (const id of this.#cards.keys()) if (!here.has(id)) this.#cards.delete(id);
    this.#place(this.waiting, waiting);
    this.#place(this.ended, ended);
    const choice = waiting.filter((job) => this.jobs.canPrint(job));
    const picked = this.picked;
    this.all.hidden = choice.length < 2;
    this.all.textContent = picked.length === choice.length ? _("Choose none") : _("Choose all");
    this.bar.hidden = !picked.length;
    document.body.classList.toggle("choosing", picked.length > 0);
    this.print.textContent = this.verb(picked);
  }

  close() {
    this.bar.remove();
    document.body.classList.remove("choosing");
  }

  #pickAll() {
    const choice = this.jobs.waiting.filter((job) => this.jobs.canPrint(job));
    this.pick(this.picked.length === choice.length ? [] : choice.map((job) => job.id));
  }

  #place(list, jobs) {
    const active = document.activeElement;
    const held = list.contains(active) ? active.closest(".card") : null;
    arrange(list, jobs.map((job) => this.#card(job).node));
    if (!held || document.activeElement === active) return;
    // It may be on its way to the other list.
    queueMicrotask(() => {
      if (document.activeElement !== document.body) return;
      const card = [...this.#cards.values()].find(({ node }) => node === held);
      if (held.isConnected && active.checkVisibility()) active.focus();
      else (held.isConnected && card ? card : this.app).focus();
    });
  }

  #card(job) {
    const card = this.#cards.get(job.id);
    if (card) card.update(job);
    else this.#cards.set(job.id, new Card(job, this));
    return this.#cards.get(job.id);
  }
}

/** A dot for each copy, filled where its host is awake; empty where nobody knows. */
export function copyDots(job) {
  const dots = Array.from({ length: Math.min(job.copies ?? 0, MOST_DOTS) }, (_, n) => h("i", { class: n < job.awake ? "on" : "" }));
  return dots.length ? h("span", { class: "copies", role: "img", "aria-label": copiesOf(job), title: copiesOf(job) }, dots) : "";
}

/** How much of it came out: pages so far and pages in all, null where nobody counts. */
function progressOf(job) {
  const all = (pagesOf(job) ?? 0) * job.ticket.copies;
  return typeof job.printed === "number" && job.printed <= all ? [job.printed, all] : null;
}

class Card {
  /** `desk` offers jobs, toggle(id), isPicked(id), each, printJobs(jobs), remove(jobs), details(job), pictures. */
  constructor(job, desk) {
    this.desk = desk;
    const id = `job-${job.id}`;
    const button = (words, act, props = {}) => h("button", { type: "button", class: "quiet", "aria-describedby": id, onclick: act, ...props }, words);
    this.title = h("h3", { class: "title", id, tabindex: "-1" }, h("bdi"));
    this.check = h("input", { type: "checkbox", class: "check", "aria-labelledby": id, onchange: () => desk.toggle(this.job.id) });
    this.thumb = h("div", { class: "thumb", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i"));
    this.facts = h("p", { class: "facts" });
    this.wait = h("p", { class: "wait" });
    this.word = h("span", { class: "word" });
    this.state = h("p", { class: "state" }, h("span", { class: "mark", "aria-hidden": "true" }), this.word);
    this.story = h("p", { class: "story" }, h("bdi"));
    this.progress = h("progress", { "aria-labelledby": id });
    this.count = h("span", { class: "count" });
    this.way = h("div", { class: "way" }, this.progress, this.count);
    this.problem = problemLine();
    this.print = button(_("Print"), () => desk.printJobs([this.job]), { class: "print" });
    this.settle = button(_("It came out"), () => desk.jobs.settle(this.job.id), { class: "" });
    this.delete = button(_("Delete"), () => desk.remove([this.job]));
    this.details = button(_("Details"), () => desk.details(this.job));
    this.node = h("li", { class: "card" },
      h("article", { "aria-labelledby": id },
        this.thumb,
        h("div", { class: "body" }, this.title, this.facts, this.wait, this.state, this.way),
        h("div", { class: "news" }, this.story, this.problem),
        h("div", { class: "actions" }, this.print, this.settle, this.details, this.delete),
        this.check));
    this.node.addEventListener("click", (event) => {
      if (event.target.closest("button, input, a") || String(getSelection())) return;
      if (!this.check.hidden) this.check.click();
    });
    this.update(job);
  }

  update(job) {
    this.job = job;
    this.draw();
  }

  draw() {
    const { job, desk } = this;
    const asked = desk.jobs.asked(job.id);
    const [word, tone] = stateOf(job);
    const ended = ENDED.has(job.state);
    const problem = desk.jobs.problem(job.id);
    const busy = !ended && desk.jobs.isBusy(job);
    const can = desk.jobs.canPrint(job);
    this.node.dataset.tone = asked ? "busy" : problem ? "bad" : tone;
    this.node.classList.toggle("ended", ended);
    this.node.classList.toggle("picked", can && desk.isPicked(job.id));
    this.title.firstElementChild.textContent = titleOf(job);
    this.title.title = clean(job.title);
    this.facts.textContent = ended ? endOf(job) : factsOf(job);
    this.wait.replaceChildren(ended ? "" : waitOf(job), ended ? "" : copyDots(job));
    this.wait.hidden = ended || busy;
    this.word.textContent = asked ?? word;
    this.state.hidden = job.state === "held" && !job.trouble && !asked;
    this.story.firstElementChild.textContent = storyOf(job);
    this.story.hidden = !storyOf(job) || (ended && job.state === "done");
    this.#drawWay(busy);
    if (this.problem.textContent !== problem) this.problem.tell(problem);
    this.check.hidden = ended;
    this.check.disabled = !can;
    this.check.checked = can && desk.isPicked(job.id);
    this.print.hidden = !can || !desk.each;
    this.print.textContent = job.state === "uncertain" ? _("Print again") : _("Print");
    this.settle.hidden = job.state !== "uncertain" || !can;
    this.delete.hidden = !can;
    if (job.picture) desk.pictures.show(job.id, this.thumb);
  }

  #drawWay(busy) {
    this.way.hidden = !busy;
    const progress = progressOf(this.job);
    if (progress) [this.progress.value, this.progress.max] = progress;
    else this.progress.removeAttribute("value");
    const [page, all] = progress ?? [0, 0];
    this.count.textContent = page ? ngettext("page {page} of {n}", "page {page} of {n}", all, { page }) : "";
  }

  focus() {
    this.title.focus();
  }
}
