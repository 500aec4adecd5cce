// One job on the page: its card stays the same element while it changes, so that focus and what was typed stay too.

import { ask } from "./api.js";
import { BUSY, ENDED, clean, colourOf, factsOf, moment, sidesOf, stateOf } from "./words.js";

const ORDER_LIFE = 75_000;
const LAST_PRINTER = "pullprint-printer";
const PENDING = { release: "Starting", settle: "Noting", remove: "Deleting" };

const now = () => Date.now() / 1000;

export class Job {
  #traced = 0;
  #pending = null;

  /** `desk` offers printers(), confirm(text), changed(view) and say(text). */
  constructor(view, desk) {
    this.desk = desk;
    this.node = document.getElementById("job").content.firstElementChild.cloneNode(true);
    const part = (selector) => this.node.querySelector(selector);
    const act = (name) => part(`[data-act=${name}]`);
    this.title = part(".title");
    this.form = part(".release");
    this.history = part(".history");
    this.parts = {
      word: part(".word"), facts: part(".facts"), sentence: part(".sentence"), problem: part(".problem"),
      warning: part(".warning"), actions: part(".main-actions"), trace: part(".trace"),
      print: act("print"), settle: act("settle"), history: act("trace"), remove: act("remove"),
    };
    const id = `job-${view.id}`;
    this.title.id = id;
    part("article").setAttribute("aria-labelledby", id);
    for (const button of this.node.querySelectorAll("button")) button.setAttribute("aria-describedby", id);
    this.parts.print.addEventListener("click", () => this.#open(this.form.hidden));
    act("close").addEventListener("click", () => this.#open(false));
    this.parts.settle.addEventListener("click", () => this.#change("settle", "POST", `jobs/${this.view.id}/settle`, {}));
    this.parts.remove.addEventListener("click", () => this.#remove());
    this.parts.history.addEventListener("click", () => this.#showHistory(this.history.hidden));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#release();
    });
    this.update(view);
  }

  get ended() {
    return ENDED.has(this.view.state);
  }

  /** Show `view`; true when its state is another one than before. */
  update(view) {
    const old = this.view;
    const moved = old && old.state !== view.state;
    const told = old && old.sentence !== view.sentence;
    if (view.state === "held" && old && (moved ? BUSY.has(old.state) : told && this.#pending?.act === "release")) {
      this.trouble = this.#pending?.sentence !== view.sentence;
    } else if (moved) {
      this.trouble = false;
    }
    if (this.#pending && (moved || view.sentence !== this.#pending.sentence)) this.#pending = null;
    this.view = view;
    if (moved) this.#problem("");
    this.draw();
    if (!old || moved) this.#fill();
    if (old && (moved || told) && !this.history.hidden) this.#loadHistory();
    return Boolean(moved);
  }

  draw() {
    const { view, parts } = this;
    const [word, tone] = stateOf(view);
    const pending = this.#pending && PENDING[this.#pending.act];
    const resting = !pending && (view.state === "held" || view.state === "uncertain");
    const uncertain = view.state === "uncertain";
    this.node.dataset.tone = pending ? "busy" : this.trouble ? "bad" : tone;
    parts.word.textContent = pending || (this.trouble ? "Not printed" : word);
    this.title.firstElementChild.textContent = clean(view.title) || "Untitled";
    this.title.title = clean(view.title);
    parts.facts.textContent = factsOf(view, now());
    parts.sentence.firstElementChild.textContent = clean(view.sentence, 1000);
    parts.sentence.hidden = !view.sentence;
    parts.print.hidden = !resting;
    parts.print.textContent = uncertain ? "Print again…" : "Print…";
    parts.print.classList.toggle("primary", !uncertain);
    parts.settle.hidden = !resting || !uncertain;
    parts.remove.hidden = !resting;
    parts.warning.hidden = !uncertain;
    if (!resting && !this.form.hidden) this.#open(false);
  }

  focus() {
    this.title.focus();
  }

  /** The word that it is in now, for those who hear the page. */
  get news() {
    return `${clean(this.view.title, 60)}: ${this.parts.word.textContent}. ${clean(this.view.sentence)}`;
  }

  #fill() {
    const { copies, sides, "print-color-mode": colour } = this.form.elements;
    copies.value = this.view.ticket.copies;
    for (const [field, sent] of [[sides, sidesOf(this.view)], [colour, colourOf(this.view)]]) {
      field.value = "";
      field.querySelector("[data-as-sent]").textContent = sent ? `As sent: ${sent}` : "As sent";
    }
  }

  async #open(open) {
    this.form.hidden = !open;
    this.parts.print.setAttribute("aria-expanded", String(open));
    if (!open) {
      if (this.node.contains(document.activeElement)) (this.parts.print.hidden ? this.title : this.parts.print).focus();
      return;
    }
    this.#problem("");
    const field = this.form.elements.printer;
    const before = field.value || localStorage.getItem(LAST_PRINTER);
    try {
      const printers = await this.desk.printers();
      field.replaceChildren(...printers.map((printer) => {
        const place = printer.place ? ` — ${clean(printer.place, 80)}` : "";
        return new Option(clean(printer.name, 80) + place, printer.id);
      }));
      if (printers.some((printer) => printer.id === before)) field.value = before;
      else {
        const direct = printers.find((printer) => printer.name === this.view.direct_printer);
        if (direct) field.value = direct.id;
      }
      if (!printers.length) this.#problem("There is no printer to choose yet. Your job stays held.");
      field.focus();
    } catch (error) {
      this.#failed(error);
    }
  }

  async #release() {
    const { elements } = this.form;
    const copies = elements.copies.value.trim();
    if (!/^[1-9]\d{0,3}$/.test(copies)) {
      this.#problem("Choose between 1 and 9999 copies.");
      elements.copies.focus();
      return;
    }
    const changes = {};
    if (Number(copies) !== this.view.ticket.copies) changes.copies = copies;
    for (const name of ["sides", "print-color-mode"]) if (elements[name].value) changes[name] = elements[name].value;
    const printer = elements.printer.value;
    if (!printer) return this.#problem("Choose a printer first. Your job stays held.");
    localStorage.setItem(LAST_PRINTER, printer);
    const body = { printer, changes, again: this.view.state === "uncertain" };
    await this.#change("release", "POST", `jobs/${this.view.id}/release`, body);
  }

  async #remove() {
    const title = clean(this.view.title, 120) || "Untitled";
    if (await this.desk.confirm(`“${title}” will be destroyed everywhere it is kept. This cannot be undone.`)) {
      await this.#change("remove", "DELETE", `jobs/${this.view.id}`);
    } else {
      this.parts.remove.focus();
    }
  }

  async #change(act, method, path, body) {
    this.#problem("");
    this.trouble = false;
    const before = this.view;
    const buttons = [...this.node.querySelectorAll("button")];
    buttons.forEach((button) => { button.disabled = true; });
    try {
      const view = await ask(method, path, body);
      const hadFocus = this.node.contains(document.activeElement) || document.activeElement === document.body;
      // The list may have brought something newer than this answer; then the list is right.
      if (this.view === before) {
        const pending = { act, sentence: view.sentence };
        this.#pending = pending;
        setTimeout(() => {
          if (this.#pending === pending) this.#pending = null;
          this.draw();
        }, ORDER_LIFE);
        this.desk.changed(view);
      }
      this.#open(false);
      if (hadFocus) this.focus();
      this.desk.say(this.news);
    } catch (error) {
      this.#failed(error);
    } finally {
      buttons.forEach((button) => { button.disabled = false; });
    }
  }

  async #showHistory(show) {
    this.history.hidden = !show;
    this.parts.history.setAttribute("aria-expanded", String(show));
    if (show) await this.#loadHistory();
  }

  async #loadHistory() {
    const turn = ++this.#traced;
    const problem = this.history.querySelector(".problem");
    try {
      const steps = await ask("GET", `jobs/${this.view.id}/trace`);
      if (turn !== this.#traced) return;
      const template = document.getElementById("step").content.firstElementChild;
      this.parts.trace.replaceChildren(...steps.map((step) => {
        const line = template.cloneNode(true);
        line.querySelector("time").textContent = moment(step.at, now());
        line.querySelector(".what").textContent = clean(step.text, 1000);
        line.querySelector(".where").textContent = clean(step.host, 60);
        return line;
      }));
      problem.hidden = true;
    } catch (error) {
      problem.textContent = clean(error.message, 1000);
      problem.hidden = false;
    }
  }

  #failed(error) {
    this.#problem(error.status === 401 ? "" : `${clean(error.message, 1000)}${error.status ? "" : " Your job stays held; try again."}`);
  }

  #problem(text) {
    this.parts.problem.textContent = text;
    this.parts.problem.hidden = !text;
  }
}
