// Documents on their way from this device: one line each, until they are jobs.

import { h, icon, problemLine } from "../dom.js";
import { _ } from "../i18n.js";
import { upload } from "../upload.js";
import { clean, sizeOf } from "../words.js";

const AT_ONCE = 2;

export class Uploads {
  #queue = [];
  #running = 0;

  /** Lines are added to `list`; `onjob(job)` for each that has become one. */
  constructor(list, { onjob }) {
    Object.assign(this, { list, onjob });
  }

  /** Take `file`. */
  add(file) {
    const abort = new AbortController();
    const name = clean(file.name, 80) || _("Untitled");
    const bar = h("progress", { max: "1", value: "0", "aria-label": name });
    const word = h("small", {}, `${sizeOf(file.size)} · ${_("waiting")}`);
    const problem = problemLine();
    const again = h("button", { type: "button", hidden: true, onclick: () => {
      again.hidden = true;
      problem.tell("");
      this.#begin(task);
    } }, _("Try again"));
    const cancel = h("button", { type: "button", class: "quiet square", "aria-label": _("Cancel: {name}", { name }), onclick: () => this.#drop(task) }, icon("close"));
    const line = h("li", { class: "upload" }, h("span", { class: "names" }, h("bdi", {}, name), word), cancel, bar, problem, again);
    const task = { file, abort, line, bar, word, problem, again };
    this.list.append(line);
    this.#begin(task);
  }

  #begin(task) {
    this.#queue.push(task);
    this.#next();
  }

  #drop(task) {
    task.abort.abort();
    this.#queue = this.#queue.filter((other) => other !== task);
    task.line.remove();
    document.getElementById("main").focus();
  }

  async #next() {
    if (this.#running >= AT_ONCE || !this.#queue.length) return;
    const task = this.#queue.shift();
    this.#running += 1;
    const size = sizeOf(task.file.size);
    const onprogress = (share) => {
      task.bar.value = share;
      task.word.textContent = share < 0.2 ? `${size} · ${_("sealing")}` : share < 1 ? `${size} · ${_("sending")}` : _("a computer of your office makes it ready");
    };
    try {
      const job = await upload(task.file, { onprogress, signal: task.abort.signal });
      task.line.remove();
      this.onjob(job);
    } catch (error) {
      if (!task.abort.signal.aborted) this.#failed(task, error);
    } finally {
      this.#running -= 1;
      this.#next();
    }
  }

  #failed(task, error) {
    task.bar.value = 0;
    task.word.textContent = _("not sent");
    task.problem.tell(error.message);
    task.again.hidden = Boolean(error.status && error.status !== 401 && error.status < 500);
  }
}
