// One job in a list: its card stays the same element while it changes, so that focus and selection stay too.

import { h, icon, problemLine } from "../dom.js";
import { _, ngettext } from "../i18n.js";
import { clean, ENDED, endOf, factsOf, stateOf, storyOf, titleOf, waitOf } from "../words.js";

/** How much of it came out: pages so far and pages in all, null where nobody counts. */
function progressOf(job) {
  const all = (job.facts?.pages ?? 0) * job.ticket.copies;
  return typeof job.printed === "number" && job.printed <= all ? [job.printed, all] : null;
}

export class Card {
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
    this.wait.textContent = ended ? "" : waitOf(job);
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
