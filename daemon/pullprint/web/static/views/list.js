// A list of jobs to choose from, and the bar at the thumb that does something with those that are chosen.

import { arrange, h, icon } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { Card } from "./card.js";

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
